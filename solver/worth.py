"""What one more replica is worth, and what may be retired.

Two answers for every group that runs: the derivative that the duals of the routing problem give,
and the finite difference, from routing the same demand over one replica more and one less. Delay
is convex in the number of replicas, so the derivative bounds both: one more saves at most as
much as it says, and one less costs at least as much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from router.domain.errors import WorkloadError
from router.domain.fleet import Fleet
from router.perf.hardware import Hardware
from solver.assemble import build_problem
from solver.capacity import Believed
from solver.options import Limits, Weights
from solver.problem import Ints, Problem
from solver.routing import occupied, route
from solver.stock import stock_of
from solver.workload import Workload

Advice = Literal["buy", "retire", "keep", "unpriced"]


@dataclass(frozen=True, slots=True)
class Worth:
    """One group; delay is in requests in the system, which is seconds of delay per second.

    Attributes:
        group: which engines.
        replicas: how many run.
        usd_per_hour: of one.
        utilization: mean.
        by_dual: what a replica saves, to first order.
        one_more: what one more would save.
        one_less: what retiring one would add; ``None`` if somebody could then not be served.
        rent: of one, weighed as the plan weighs it, in the same unit as the delay.
        one_more_tried, one_less_tried: the same two as a trial of the fleet showed them; ``None``
            where it was not tried.
    """

    group: str
    replicas: int
    usd_per_hour: float
    utilization: float
    by_dual: float
    one_more: float
    one_less: float | None
    rent: float = 0.0
    one_more_tried: float | None = None
    one_less_tried: float | None = None

    @property
    def buy(self) -> bool:
        """Whether one more saves more than its rent weighs; by the trial if there was one."""
        saved = self.one_more if self.one_more_tried is None else self.one_more_tried
        return self.priced and saved > self.rent

    @property
    def retire(self) -> bool:
        """Whether one less adds less than its rent weighs; by the trial if there was one."""
        added = self.one_less if self.one_less_tried is None else self.one_less_tried
        return self.priced and added is not None and added < self.rent

    @property
    def priced(self) -> bool:
        """Whether there is a rent to set delay against: where it weighs nothing, one more of
        anything saves more than that."""
        return self.rent > 0.0

    @property
    def advice(self) -> Advice:
        """In a word."""
        if not self.priced:
            return "unpriced"
        return "buy" if self.buy else "retire" if self.retire else "keep"


Try = Callable[[Fleet], float]
"""Mean requests in the system of a fleet, by other means than this model's."""


def worth(
    workload: Workload,
    fleet: Fleet,
    weights: Weights | None = None,
    limits: Limits | None = None,
    *,
    hardware: Hardware | None = None,
    believed: Believed | None = None,
) -> tuple[Worth, ...]:
    """Value a replica of every group of a fleet as it is placed now, by the delay it saves.

    Delay alone is valued; ``buy`` and ``retire`` compare it with the rent by ``Weights.cost``.
    ``believed`` holds iteration times by group, where they differ from the catalogue's.

    Raises:
        WorkloadError: demand that nobody here can serve.
        SolverError: no usable answer.
    """
    weights = weights or Weights()
    delay_only = replace(weights, cost=0.0, energy=0.0, switching=0.0)
    stock = stock_of(fleet, hardware=hardware, movable=False)
    problem = build_problem(workload, stock, limits or Limits(), believed=believed, tiered=False)
    if problem.orphans():
        names = ", ".join(problem.classes[c].name for c in problem.orphans())
        raise WorkloadError(f"nobody in this fleet can serve class {names}")
    counts = problem.running[[column.base for column in problem.columns]]
    now, model = route(problem, counts, delay_only, soft=True)

    def objective(j: int, change: int) -> float:
        return route(problem, _changed(counts, j, change), delay_only, soft=True, model=model)[
            0
        ].objective

    def valued(j: int) -> Worth:
        base = problem.bases[problem.columns[j].base]
        rent = weights.cost * base.usd_per_hour
        more = now.objective - objective(j, +1)
        less = _retired(problem, counts, j, delay_only, now.objective)
        return Worth(
            base.group,
            int(counts[j]),
            base.usd_per_hour,
            float(now.utilization[j]),
            float(now.replica_worth[j]),
            more,
            less,
            rent,
        )

    return tuple(valued(j) for j in range(len(problem.columns)))


def tried(valued: Sequence[Worth], fleet: Fleet, trial: Try) -> tuple[Worth, ...]:
    """The same values with what trying each fleet of one more and one less shows beside them."""
    now = trial(fleet)
    found = []
    for one in valued:
        member = fleet.groups()[one.group][0]
        more = Fleet((*fleet.backends, replace(member, name=f"{member.name}-more")))
        less = Fleet(tuple(spec for spec in fleet.backends if spec.name != member.name))
        found.append(
            replace(
                one,
                one_more_tried=now - trial(more),
                one_less_tried=None if one.one_less is None else trial(less) - now,
            )
        )
    return tuple(found)


def _retired(problem: Problem, counts: Ints, j: int, weights: Weights, now: float) -> float | None:
    """What one replica less would add; ``None`` if that leaves a class without any engine."""
    reduced, left = occupied(problem, _changed(counts, j, -1))
    if reduced.orphans():
        return None
    return route(reduced, left, weights, soft=True)[0].objective - now


def _changed(counts: Ints, j: int, change: int) -> Ints:
    changed = counts.copy()
    changed[j] += change
    return np.asarray(changed)
