"""The values of the ILP's numbers: from a problem, weights and, to route, a placement."""

from __future__ import annotations

import numpy as np

from solver.incidence import Incidence
from solver.options import Weights
from solver.points import STEEPEST, tangents
from solver.problem import Floats, Ints, Problem
from solver.terms import Numbers

UNBOUNDED = 1e6
"""Load that no column reaches; small enough not to disturb the solver's tolerances."""


def fill(
    numbers: Numbers,
    problem: Problem,
    shape: Incidence,
    weights: Weights,
    *,
    replicas: Ints | None = None,
    soft: bool = False,
) -> None:
    """Give every parameter its value from a problem of the same shape.

    Args:
        numbers: the parameters.
        problem, shape, weights: what they are computed from.
        replicas: (J,) the placement to route over; ``None`` to place.
        soft: load and KV may exceed their ceilings at the price of the steepest tangent, and
            nobody whom some engine can serve is turned away: the live router has no choice.
    """
    count = np.ones(len(problem.columns)) if replicas is None else replicas.astype(float)
    slope, intercept = tangents(problem, placing=replicas is None)
    served = np.isin(np.arange(len(problem.classes)), problem.edge_class)
    limits = problem.limits
    ceiling = np.array([column.ceiling for column in problem.columns])
    values: dict[str, Floats | float] = {
        "rate": problem.rates,
        "unserved_limit": np.where(served, 0.0, problem.rates) if soft else problem.rates,
        "engine_s": problem.engine_s,
        "kv_share": problem.kv_share,
        "background": np.zeros(len(count)),
        "ceiling": np.full(len(count), UNBOUNDED) if soft else count * ceiling,
        "kv_room": count * limits.kv_ceiling,
        "overfull_limit": np.full(len(count), UNBOUNDED if soft else 0.0),
        "slope": slope,
        "intercept": intercept * np.repeat(count, len(slope) // max(1, len(count))),
        "slots": shape.slots,
        "running": problem.running.astype(float),
        "ready": float(limits.min_replicas),
        "dollars": np.array([problem.bases[c.base].usd_per_hour for c in problem.columns]),
        "budget": limits.budget_usd_per_hour or 0.0,
        "moves": float(limits.max_moves or 0),
        **_costs(problem, weights, count),
    }
    for name, value in values.items():
        getattr(numbers, name).value = value


def _costs(problem: Problem, weights: Weights, count: Floats) -> dict[str, Floats | float]:
    bases = problem.bases
    own = [bases[column.base] for column in problem.columns]
    busy_kw = np.array([(base.max_w - base.idle_w) / 1000.0 for base in own])
    idle_kw = np.array([base.idle_w / 1000.0 for base in own])
    dollars = np.array([base.usd_per_hour for base in own])
    steepest = np.array([column.congestion.slope(STEEPEST) for column in problem.columns])
    loading = np.array([base.load_s * base.cards for base in bases])
    return {
        "flow_cost": weights.latency * problem.alone_s,
        "extra_cost": np.full(len(own), weights.latency),
        "load_cost": weights.energy * busy_kw,
        "replica_cost": (weights.cost * dollars + weights.energy * idle_kw) * count,
        "overfull_cost": weights.latency * steepest,
        "start_cost": weights.switching * loading / problem.limits.horizon_s,
        "unserved_cost": np.full(len(problem.classes), weights.unserved),
        "worst_cost": weights.fairness,
    }
