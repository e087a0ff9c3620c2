"""Timeouts and retries of the relay."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Stage(Enum):
    """Where an attempt stands."""

    CONNECTING = auto()
    WAITING = auto()
    PEEKING = auto()
    REFUSED = auto()
    RELAYING = auto()
    OVER = auto()


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things may take, in seconds.

    Attributes:
        connect_s: until the connection stands.
        first_byte_s: from then to the first byte of an answer.
        idle_s: between two reads that bring more than keep-alive comments.
        total_s: from arrival to the end of the answer.
        retries: further attempts after the first.
    """

    connect_s: float
    first_byte_s: float
    idle_s: float
    total_s: float
    retries: int

    def at(self, stage: Stage) -> float:
        """Seconds that an attempt may stay where it stands without a sign of life."""
        if stage is Stage.RELAYING:
            return self.idle_s
        return self.connect_s if stage is Stage.CONNECTING else self.first_byte_s

    @property
    def shortest_s(self) -> float:
        """The limit that may be the first to pass."""
        return min(self.connect_s, self.first_byte_s, self.idle_s, self.total_s)


def lateness(stage: Stage, *, whole: bool) -> str:
    """What to say of a backend that is late in this stage; ``whole`` if all the time is up."""
    if whole:
        return "took too long"
    if stage is Stage.RELAYING:
        return "fell silent in mid-answer"
    if stage is Stage.CONNECTING:
        return "could not be connected in time"
    return "sent no answer in time"
