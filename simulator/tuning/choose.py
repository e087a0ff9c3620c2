"""Which of several measured sets of weights to take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from router.domain.errors import WorkloadError
from simulator.tuning.trial import Measured


@dataclass(frozen=True, slots=True)
class Goal:
    """What a fleet is for, in dollars.

    Attributes:
        target: share of requests that must meet their targets; whatever misses it is worse than
            whatever keeps it.
        usd_per_kwh: of electricity.
        wait_usd_per_hour: what an hour of one user's waiting is worth; 0 counts only the targets.
    """

    target: float = 0.99
    usd_per_kwh: float = 0.15
    wait_usd_per_hour: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.target <= 1:
            raise WorkloadError(f"the target must be a share in (0, 1], not {self.target!r}")
        for name in ("usd_per_kwh", "wait_usd_per_hour"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise WorkloadError(f"{name} must be finite and not negative, not {value!r}")

    def usd_per_hour(self, one: Measured) -> float:
        """Rent, electricity and waiting."""
        return (
            one.usd_per_hour
            + self.usd_per_kwh * one.power_kw
            + self.wait_usd_per_hour * one.waiting
        )

    def score(self, one: Measured) -> float:
        """Lower is better; a missed target costs more than any fleet that keeps it."""
        missed = max(0.0, self.target - one.attainment)
        return self.usd_per_hour(one) + (MISSED_USD * (1.0 + missed) if missed else 0.0)


MISSED_USD = 1e6


def pareto(found: Sequence[Measured]) -> list[Measured]:
    """Those that nobody beats in E2E P99, rent and power at once; cheapest first, no repeats."""
    distinct = {tuple(sorted(one.replicas.items())): one for one in found}
    left = [
        one
        for one in distinct.values()
        if not any(_beats(other, one) for other in distinct.values())
    ]
    return sorted(left, key=lambda one: (one.usd_per_hour, one.e2e_p99_s))


def best(found: Sequence[Measured], goal: Goal) -> Measured:
    """The one with the lowest score; the first of equals."""
    return min(found, key=goal.score)


def _axes(one: Measured) -> tuple[float, float, float]:
    return one.e2e_p99_s, one.usd_per_hour, one.power_kw


def _beats(other: Measured, one: Measured) -> bool:
    pairs = list(zip(_axes(other), _axes(one), strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
