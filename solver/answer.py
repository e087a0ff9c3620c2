"""A plan as values: replicas, shares, prices. What everybody outside the solver reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

PlanStatus = Literal["optimal", "feasible", "overloaded"]


@dataclass(frozen=True, slots=True)
class ReplicaCount:
    """Replicas of one group.

    Attributes:
        group, gpu, model, engine, zone, quantization, tensor_parallel: which engine.
        replicas: planned.
        running: now.
        utilization: planned mean, 0 to 1.
        usd_per_hour: of all planned replicas.
    """

    group: str
    gpu: str
    model: str
    engine: str
    zone: str
    quantization: str
    tensor_parallel: int
    replicas: int
    running: int
    utilization: float
    usd_per_hour: float

    @property
    def cards(self) -> int:
        """Cards that the planned replicas take."""
        return self.replicas * self.tensor_parallel


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a class's requests that goes to a group; ``None`` is turned away (I7)."""

    work_class: str
    group: str | None
    share: float


@dataclass(frozen=True, slots=True)
class Price:
    """What one engine-second on a group is worth, in seconds of delay.

    Attributes:
        group: which engines.
        price: by how much total delay grows when one engine-second of work is added: the slower
            batch and longer queue of everybody there, and, at a ceiling, the detours of others.
            0 on an idle group; it rises with load.
        load: the part from the load row.
        kv: the part from the KV row, at the group's own ratio of KV memory to engine time.
        toll: the part of ``load`` that a request cannot see in the state it meets on arrival
            (see ``Congestion.toll``): what a policy adds that already counts the delay of those
            present.
        pooled: the toll that a policy adds which chooses by state: a request's share of the
            model's whole capacity, at what that costs where it costs least. Who looks at the
            state sends nobody to a queue, so a group's own toll overstates what is inflicted
            there; what is left is how much of the common capacity a request takes up on this
            group rather than on another.
    """

    group: str
    price: float
    load: float
    kv: float
    toll: float
    pooled: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run, where to send whom, and what a second is worth.

    Attributes:
        status: "optimal" within the asked gap; "feasible" if time ran out before the proof;
            "overloaded" if requests are turned away.
        objective: requests in the system, all other terms converted (see ``Weights``).
        bound: no plan is better than this.
        replicas: by group, planned or running.
        shares: by class; each class's add up to 1 (I7).
        prices: by group that has replicas.
        cost_usd_per_hour: of the planned replicas.
        solve_s: wall time.
        e2e_s: mean E2E expected of the requests that are served.
        notes: what the reader should know: SLOs nobody meets, classes turned away.
    """

    status: PlanStatus
    objective: float
    bound: float
    replicas: tuple[ReplicaCount, ...]
    shares: tuple[Share, ...]
    prices: tuple[Price, ...]
    cost_usd_per_hour: float
    solve_s: float
    e2e_s: float = 0.0
    notes: tuple[str, ...] = field(default=())

    @property
    def gap(self) -> float:
        """Relative distance of the objective to the bound."""
        return max(0.0, self.objective - self.bound) / max(1e-9, abs(self.objective))

    def price_of(self, group: str) -> float:
        """Price of a group; 0 where nothing runs."""
        return next((price.price for price in self.prices if price.group == group), 0.0)

    def share_of(self, work_class: str) -> dict[str | None, float]:
        """Shares of one class by group."""
        return {s.group: s.share for s in self.shares if s.work_class == work_class}

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values; the keys are a contract."""
        return {
            "status": self.status,
            "objective": self.objective,
            "replicas": [_replica_json(one) for one in self.replicas],
            "shares": [
                {"class": one.work_class, "group": one.group, "share": one.share}
                for one in self.shares
            ],
            "prices": [{"group": one.group, "price": one.price} for one in self.prices],
            "cost_usd_per_hour": self.cost_usd_per_hour,
            "solve_s": self.solve_s,
        }


def _replica_json(one: ReplicaCount) -> dict[str, Any]:
    return {
        "group": one.group,
        "gpu": one.gpu,
        "model": one.model,
        "engine": one.engine,
        "zone": one.zone,
        "quantization": one.quantization,
        "tensor_parallel": one.tensor_parallel,
        "replicas": one.replicas,
        "running": one.running,
        "cards": one.cards,
        "utilization": one.utilization,
        "usd_per_hour": one.usd_per_hour,
    }
