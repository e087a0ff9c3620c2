"""Beyond the breaker: who fails more than its peers, who is new, and what to do when few are left.

*Outlier ejection.* A breaker counts failures in a row, so a backend that fails every third request
never opens it. It is ejected (its breaker opens) when it fails a larger share than is allowed, and
at least twice its peers' share: if all fail alike, the cause is not the backend.

*Slow start.* A backend that joins or recovers has cold caches and looks idle, so that every policy
would send it everything at once. Its share of the busiest one's load grows over ``slow_start_s``.

*Panic threshold.* When fewer than this share of a model's backends are usable, health is no longer
believed and all of them are used: the few that are left would only be drowned. (Envoy's names.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

STANDS_OUT = 2.0
"""Times its peers' share of failures, from which on a backend differs from them."""


@dataclass(frozen=True, slots=True)
class CareRules:
    """What is on; each rule is off by its default.

    Attributes:
        failure_ratio: share of failed requests beyond which a backend may be ejected; 1: never.
        min_requests: that many of its own are looked back on, and none is judged by fewer.
        max_ejected: share of a model's backends that may be out at once for this reason.
        slow_start_s: how long a new or recovered backend takes to get its full load.
        panic_threshold: share of usable backends below which all are used.
    """

    failure_ratio: float = 1.0
    min_requests: int = 20
    max_ejected: float = 0.5
    slow_start_s: float = 0.0
    panic_threshold: float = 0.0


@dataclass(slots=True)
class FailureShare:
    """Share of failures among the last so many requests of one backend, older ones fading."""

    seen: int = 0
    share: float = 0.0

    def note(self, failed: bool, memory: int) -> None:
        """One request more."""
        self.seen = min(self.seen + 1, memory)
        self.share += (failed - self.share) / self.seen

    def forget(self) -> None:
        """What was is of another time."""
        self.seen, self.share = 0, 0.0


class Ramping(Protocol):
    """What slow start looks at."""

    in_flight: int
    ramps_from_s: float


def stands_out(mine: FailureShare, others: Sequence[FailureShare], rules: CareRules) -> bool:
    """Whether a backend fails too much, by the rules and beside its peers."""
    if mine.seen < rules.min_requests or mine.share <= rules.failure_ratio:
        return False
    known = [other.share for other in others if other.seen]
    return bool(known) and mine.share >= STANDS_OUT * sum(known) / len(known)


def may_take_more(backend: Ramping, busiest: int, now: float, slow_start_s: float) -> bool:
    """Whether a backend that ramps up may have one more request.

    Args:
        backend: new or recovered.
        busiest: requests that the busiest of the others has in flight.
        now: the time.
        slow_start_s: how long it ramps.
    """
    share = (now - backend.ramps_from_s) / slow_start_s
    return share >= 1.0 or backend.in_flight < max(1, math.ceil(share * busiest))
