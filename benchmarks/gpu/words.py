"""What an engine's process and its HTTP server say to each other over a pipe."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CoreOptions:
    """One engine.

    Attributes:
        shape: name of its model's sizes.
        device: "cuda", or "cpu" to try things with the smallest shape.
        max_seqs, seat_tokens: most sequences at once, and tokens of the longest.
        chunk_tokens: most tokens of one iteration.
        pause_s: slept after each iteration: a slow card, for trying things on a CPU.
    """

    shape: str
    device: str = "cuda"
    max_seqs: int = 64
    seat_tokens: int = 2048
    chunk_tokens: int = 2048
    pause_s: float = 0.0

    @property
    def cache_tokens(self) -> int:
        return self.max_seqs * self.seat_tokens


@dataclass(frozen=True, slots=True)
class Submit:
    name: str
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Cancel:
    name: str


@dataclass(frozen=True, slots=True)
class TakeLog:
    """Asks for the iterations since the last time."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Asks for the end."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The first word: what the process sees of its card."""

    processors: int
    start_s: float


@dataclass(frozen=True, slots=True)
class Gained:
    """After an iteration: who gained a token, and the state it left."""

    names: list[str]
    running: int
    waiting: int
    held_tokens: int


@dataclass(frozen=True, slots=True)
class Log:
    """Iterations: when each began (monotonic), how long it took, and its ``Work``."""

    rows: list[tuple[float, ...]]
