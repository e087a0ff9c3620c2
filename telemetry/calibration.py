"""Learns the coefficients of each backend's ``LinearCost`` themselves, with uncertainty.

Two multipliers (``feedback.py``) are what a router needs from minute to minute. The four
coefficients behind them tell more, and need more: that a card's prefill is right but its cost
per sequence is not, say. They start at the catalogue's values, each known to within a factor, and
move as far as the traffic can tell them apart; what it cannot tell apart keeps its prior ratio
and says so by its deviation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from router.domain.outcome import Outcome
from router.domain.state import LinearCost
from telemetry.log_filter import FilterState, LogFilter
from telemetry.sightings import VLLM_LIKE, EngineShape, Sighting, Sightings

PRIOR_OVERHEAD_S = 0.005
SPREAD = (1.5, 0.6, 0.6, 0.4, 0.4)
"""Prior standard deviations of overhead, step, prefill, sequence and context, in log units. The
last two are small shares of any iteration, which makes them the worst to see: they start tight."""

WANDER_PER_S = (0.002,) * 5
LIMIT = 2.5
FIRST_NOISE = 0.2
SMALLEST_S = 1e-12
"""Stands in for a coefficient whose prior is zero, as logs need something to multiply."""


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """Coefficients of one backend with their relative standard deviations.

    Attributes:
        cost: best estimate.
        deviation: per coefficient, relative (0.1: known to about 10%), in the same fields.
        overhead_s: seconds before the first token that are no engine iteration.
        learned: durations learned from.
    """

    cost: LinearCost
    deviation: LinearCost
    overhead_s: float
    learned: int


@dataclass(slots=True)
class _Backend:
    prior: LinearCost
    filter: LogFilter
    learned: int = 0
    restored: bool = False


@dataclass
class Calibration:
    """Coefficients by backend; fed by ``Feedback`` or, as an ``Observer``, by itself."""

    priors: Mapping[str, LinearCost] = field(default_factory=dict)
    shapes: Mapping[str, EngineShape] = field(default_factory=dict)
    _backends: dict[str, _Backend] = field(default_factory=dict, init=False)
    _sightings: dict[str, Sightings] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        for name, prior in self.priors.items():
            self.add(name, prior)

    def add(self, name: str, prior: LinearCost) -> None:
        """Start a backend at its prior."""
        start = LinearCost(
            step_s=max(prior.step_s, SMALLEST_S),
            prefill_s=max(prior.prefill_s, SMALLEST_S),
            seq_s=max(prior.seq_s, SMALLEST_S),
            context_s=max(prior.context_s, SMALLEST_S),
            pair_s=prior.pair_s,
        )
        filter_ = LogFilter(SPREAD, WANDER_PER_S, LIMIT, FIRST_NOISE)
        self._backends[name] = _Backend(start, filter_)
        self._sightings[name] = Sightings(self.shapes.get(name, VLLM_LIKE))

    def remove(self, name: str) -> None:
        """Forget a backend that left."""
        self._backends.pop(name, None)
        self._sightings.pop(name, None)

    def observe(self, outcome: Outcome) -> None:
        """Learn from one finished attempt, when used on its own."""
        sightings = self._sightings.get(outcome.backend)
        if sightings is not None:
            for sighting in sightings.note(outcome):
                self.learn(outcome.backend, sighting)

    def learn(self, name: str, sighting: Sighting) -> None:
        """Learn from one duration; a backend never added is ignored."""
        backend = self._backends.get(name)
        if backend is None:
            return
        prior = backend.prior
        base = (
            PRIOR_OVERHEAD_S * sighting.requests,
            prior.step_s * sighting.steps,
            prior.prefill_s * sighting.prefill_tokens + prior.pair_s * sighting.prefill_pairs,
            prior.seq_s * sighting.seq_steps,
            prior.context_s * sighting.context_steps,
        )
        if backend.filter.learn(base, sighting.duration_s, sighting.phase, sighting.at_s):
            backend.learned += 1

    def shift(self, name: str, phase: Literal["prefill", "decode"], log_factor: float) -> None:
        """Follow a sudden change: what is alike in a phase changes together (a slower clock)."""
        backend = self._backends.get(name)
        if backend is None:
            return
        for part in (2,) if phase == "prefill" else (1, 3, 4):
            backend.filter.shift(part, log_factor)
        for part in (1, 2):  # the parts that make up most of what is seen
            backend.filter.loosen(part, abs(log_factor) / 2.0)

    def state(self, name: str) -> FilterState | None:
        """What is known of a backend's coefficients; ``None`` if nothing was learned."""
        backend = self._backends.get(name)
        if backend is None or not (backend.learned or backend.restored):
            return None
        return backend.filter.state()

    def restore(self, name: str, state: FilterState, away_s: float) -> None:
        """Go on from what was known of a backend's coefficients."""
        backend = self._backends[name]
        backend.filter.restore(state, away_s)
        backend.restored = True

    def estimates(self) -> dict[str, CostEstimate]:
        """What is believed of every backend."""
        return {name: _estimate(backend) for name, backend in self._backends.items()}


def _estimate(backend: _Backend) -> CostEstimate:
    prior = backend.prior
    overhead, step, prefill, seq, context = backend.filter.factors()
    one, two, three, four = (math.expm1(backend.filter.deviation(k)) for k in range(1, 5))
    return CostEstimate(
        cost=LinearCost(
            step_s=prior.step_s * step,
            prefill_s=prior.prefill_s * prefill,
            seq_s=prior.seq_s * seq,
            context_s=prior.context_s * context,
            pair_s=prior.pair_s * prefill,
        ),
        deviation=LinearCost(one, two, three, four, pair_s=two),
        overhead_s=overhead * PRIOR_OVERHEAD_S,
        learned=backend.learned,
    )
