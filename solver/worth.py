"""What one more replica is worth, and what may be retired.

Two answers for every group that runs: the derivative that the duals of the routing problem give,
and the finite difference, from routing the same demand over one replica more and one less. Delay
is convex in the number of replicas, so the derivative bounds both: one more saves at most as
much as it says, and one less costs at least as much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    """

    group: str
    replicas: int
    usd_per_hour: float
    utilization: float
    by_dual: float
    one_more: float
    one_less: float | None


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

    Rent, power and switching are left out: compare the delay with ``usd_per_hour`` yourself, or
    by ``Weights.cost``.

    Raises:
        WorkloadError: demand that nobody here can serve.
        SolverError: no usable answer.
    """
    delay_only = replace(weights or Weights(), cost=0.0, energy=0.0, switching=0.0)
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

    return tuple(
        Worth(
            problem.bases[column.base].group,
            int(counts[j]),
            problem.bases[column.base].usd_per_hour,
            float(now.utilization[j]),
            float(now.replica_worth[j]),
            now.objective - objective(j, +1),
            _retired(problem, counts, j, delay_only, now.objective),
        )
        for j, column in enumerate(problem.columns)
    )


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
