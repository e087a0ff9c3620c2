"""What a plan is asked to weigh, and what it must respect.

Everything the planner minimises is expressed in one unit, requests in the system: by Little's
law that is seconds of delay suffered per second. Weights convert the rest into it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from router.domain.errors import UnknownNameError, WorkloadError
from router.domain.fleet import BackendSpec
from router.domain.slo import DEFAULT_SLOS, Slo


@dataclass(frozen=True, slots=True)
class Weights:
    """Exchange rates into requests in the system (seconds of delay per second).

    Attributes:
        latency: per request in the system; 0 ignores delay.
        cost: per US dollar and hour; 0.05 values an hour of waiting at 20 dollars.
        energy: per kilowatt.
        switching: per card-second spent loading a model, spread over ``Limits.horizon_s``.
        unserved: seconds of delay that one unserved request counts as.
        fairness: per unit of the worst tenant group's unserved share.
    """

    latency: float = 1.0
    cost: float = 0.05
    energy: float = 0.0
    switching: float = 1.0
    unserved: float = 3600.0
    fairness: float = 0.0

    def __post_init__(self) -> None:
        for spec in fields(self):
            value = getattr(self, spec.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise WorkloadError(f"weight {spec.name!r} must be a number, not {value!r}")
            if not (math.isfinite(value) and value >= 0):
                raise WorkloadError(
                    f"weight {spec.name!r} must be finite and not negative, not {value!r}"
                )

    @classmethod
    def from_mapping(cls, given: Mapping[str, object]) -> Weights:
        """Read weights by name; what is not given keeps its default.

        Raises:
            UnknownNameError: no such weight.
            WorkloadError: not a number, negative or not finite.
        """
        known = [spec.name for spec in fields(cls)]
        for name in given:
            if name not in known:
                raise UnknownNameError("weight", name, known)
        return cls(**given)  # type: ignore[arg-type]  # checked in __post_init__


@dataclass(frozen=True, slots=True)
class Limits:
    """What a plan must respect, and the numbers it is computed with.

    Attributes:
        budget_usd_per_hour: most that the replicas may cost; ``None`` for no budget.
        min_replicas: at least so many of every model, 0 or more: availability, and the guard
            against rounding a rare model to nothing.
        max_zone_share: most of a model's replicas in one zone, where several zones could hold
            it; 1 for no limit.
        max_moves: most replicas to start; ``None`` for no limit.
        ceilings: utilizations that a replica may be planned up to; latency targets are checked
            at them.
        kv_ceiling: most of the KV memory that a plan may fill in the mean.
        quality: measured quality of each weight format ("awq") or of one model in it
            ("llama-3.1-8b/awq"), 1 being the unquantized model; what is left out passes every
            floor. ``motley evaluate`` measures it.
        quality_floor: least quality by SLO class.
        slos: latency targets by SLO class.
        strict_slo: refuse to plan for a class whose target no engine meets even at the lowest
            ceiling; otherwise it is served as well as possible and noted.
        allow_unserved: return a plan that turns requests away rather than raise.
        prices_usd_per_hour: price of one card by GPU; the catalogue's where left out.
        boot_s: engine start without the weights: process, CUDA graphs, warm-up.
        load_gb_per_s: reading weights from disk into the cards of one engine.
        horizon_s: how long a plan is expected to hold; switching is spread over it.
        hysteresis: relative improvement below which no replica is started.
        time_limit_s: for the whole solve.
        mip_gap: relative optimality gap at which the search may stop.
    """

    budget_usd_per_hour: float | None = None
    min_replicas: int = 1
    max_zone_share: float = 1.0
    max_moves: int | None = None
    ceilings: tuple[float, ...] = (0.3, 0.5, 0.7, 0.85)
    kv_ceiling: float = 0.9
    quality: Mapping[str, float] = field(default_factory=dict)
    quality_floor: Mapping[str, float] = field(default_factory=dict)
    slos: Mapping[str, Slo] = field(default_factory=lambda: DEFAULT_SLOS)
    strict_slo: bool = False
    allow_unserved: bool = False
    prices_usd_per_hour: Mapping[str, float] = field(default_factory=dict)
    boot_s: float = 45.0
    load_gb_per_s: float = 1.0
    horizon_s: float = 600.0
    hysteresis: float = 0.0
    time_limit_s: float = 30.0
    mip_gap: float = 0.001

    def __post_init__(self) -> None:
        budget = self.budget_usd_per_hour
        _require(budget is None or budget > 0, "the budget must be more than 0 $/h", budget)
        _require(self.min_replicas >= 0, "min_replicas must be 0 or more", self.min_replicas)
        _require(
            0 < self.max_zone_share <= 1, "max_zone_share must be in (0, 1]", self.max_zone_share
        )
        _require(
            bool(self.ceilings) and all(0 < rho < 1 for rho in self.ceilings),
            "utilization ceilings must lie between 0 and 1",
            self.ceilings,
        )
        moves = self.max_moves
        _require(moves is None or moves >= 0, "max_moves must be 0 or more", moves)
        for name, value in (("hysteresis", self.hysteresis), ("mip_gap", self.mip_gap)):
            usable = math.isfinite(value) and value >= 0
            _require(usable, f"{name} must be a share of at least 0", value)
        _require(self.time_limit_s > 0, "the time limit must be more than 0 s", self.time_limit_s)
        for gpu, price in self.prices_usd_per_hour.items():
            _require(
                math.isfinite(price) and price >= 0, f"the price of {gpu} must be 0 or more", price
            )

    def quality_of(self, spec: BackendSpec) -> float | None:
        """Measured quality of what a backend serves; ``None`` if nobody measured it."""
        of_format = self.quality.get(spec.quantization)
        return self.quality.get(f"{spec.model}/{spec.quantization}", of_format)


def _require(condition: bool, demand: str, value: object) -> None:
    if not condition:
        raise WorkloadError(f"{demand}, not {value!r}")
