"""What a load test sends: how many requests, how long, how they arrive."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import numpy as np

from router.domain.errors import BadInputError
from simulator.arrivals import constant, gamma
from simulator.traces.columns import Trace

Endpoint = Literal["chat", "completions"]
ENDPOINTS: tuple[Endpoint, ...] = ("chat", "completions")


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked.

    Attributes:
        model: as the server names it.
        endpoint: "chat" sends words to ``/v1/chat/completions``, "completions" token ids of exact
            number to ``/v1/completions``.
        temperature: sent along.
        ignore_eos: ask for answers of exactly the length wanted (vLLM and SGLang know it).
        extra: further fields of the body.
    """

    model: str
    endpoint: Endpoint = "chat"
    temperature: float = 0.0
    ignore_eos: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """One request: when it is sent (seconds from the start) and how long it is."""

    at_s: float
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Closed:
    """Closed loop: ``concurrency`` users, each sends its next request when it has its answer."""

    concurrency: int

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise BadInputError(f"--concurrency must be 1 or more, not {self.concurrency}")


@dataclass(frozen=True, slots=True)
class Open:
    """Open loop: requests arrive when they arrive, whatever the answers do.

    Attributes:
        rate_per_s: mean arrival rate.
        cv: coefficient of variation of the gaps: 0 evenly spaced, 1 Poisson, above bursty.
    """

    rate_per_s: float
    cv: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.rate_per_s < math.inf:
            raise BadInputError(f"--rate must be above 0, not {self.rate_per_s:g}")
        if not 0.0 <= self.cv < math.inf:
            raise BadInputError(f"--burstiness must be 0 or more, not {self.cv:g}")


@dataclass(frozen=True, slots=True)
class Lengths:
    """Prompt and answer lengths in tokens; ``spread`` 0.2 draws evenly from 20 % either way."""

    input_tokens: int
    output_tokens: int
    spread: float = 0.0

    def __post_init__(self) -> None:
        for name in ("input_tokens", "output_tokens"):
            if getattr(self, name) < 1:
                raise BadInputError(f"--{name.replace('_', '-')} must be 1 or more")
        if not 0.0 <= self.spread < 1.0:
            raise BadInputError(f"--spread must be from 0 to below 1, not {self.spread:g}")

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """One prompt and one answer."""
        factors = rng.uniform(1.0 - self.spread, 1.0 + self.spread, 2)
        return (
            max(1, round(self.input_tokens * factors[0])),
            max(1, round(self.output_tokens * factors[1])),
        )


def jobs(count: int, lengths: Lengths, load: Closed | Open, rng: np.random.Generator) -> list[Job]:
    """The requests of a synthetic load; in a closed loop the times mean nothing.

    Raises:
        BadInputError: no request at all.
    """
    if count < 1:
        raise BadInputError(f"--requests must be 1 or more, not {count}")
    times = [0.0] * count
    if isinstance(load, Open):
        gaps = constant(load.rate_per_s) if load.cv == 0 else gamma(load.rate_per_s, load.cv, rng)
        times = list(islice(gaps, count))
    return [Job(at_s, *lengths.draw(rng)) for at_s in times]


def jobs_of_trace(trace: Trace, most: int | None) -> list[Job]:
    """The requests of a trace, from its first arrival on."""
    first_s = trace.arrival_s[0] if len(trace) else 0.0
    return [
        Job(record.arrival_s - first_s, max(1, record.input_tokens), max(1, record.output_tokens))
        for record in islice(trace.records(), most)
    ]
