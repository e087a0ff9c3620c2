"""From duals to prices by group.

The dual of a column's load row says how much the objective grows when one engine-second of work
is added to it. It is in seconds of delay per engine-second, because the objective is in requests
in the system. It contains congestion (the slope of ``Congestion.extra``), what a binding ceiling
costs, and the energy of the work if that is weighed.
"""

from __future__ import annotations

import numpy as np

from solver.answer import Price
from solver.problem import Floats, Problem
from solver.routing import Routing, columns_by_group


def prices_of(routing: Routing) -> tuple[Price, ...]:
    """Price every group that has replicas; columns of a group are averaged by their load."""
    problem = routing.problem
    columns = np.arange(len(problem.columns))
    held = np.bincount(problem.edge_column, problem.kv_share * routing.flow, len(columns))
    brought = np.bincount(problem.edge_column, problem.engine_s * routing.flow, len(columns))
    density = np.divide(held, brought, out=np.zeros(len(columns)), where=brought > 0)
    kv = routing.kv_price * density
    tolls = np.array(
        [
            column.congestion.toll(min(rho, 1.0 - 1e-9))
            for column, rho in zip(problem.columns, routing.utilization, strict=True)
        ]
    )
    pooled = pooled_tolls(problem, tolls)
    found = []
    for group, members in columns_by_group(routing).items():
        index = np.array(members)
        weight = np.maximum(routing.load[index], 1e-9)
        load, memory, toll, common = (
            float(np.average(v[index], weights=weight))
            for v in (routing.load_price, kv, tolls, pooled)
        )
        found.append(Price(group, load + memory, load, memory, toll, common))
    return tuple(sorted(found, key=lambda price: price.group))


def pooled_tolls(problem: Problem, tolls: Floats) -> Floats:
    """(J,) The least toll of a mean request of the column's model, per engine-second here.

    Equal for all columns of a model if multiplied by the engine-seconds of a mean request there:
    only who is better than the mean on one group and worse on another is told apart by it.
    """
    columns = np.arange(len(problem.columns))
    rates = problem.rates[problem.edge_class]
    total = np.bincount(problem.edge_column, rates, len(columns))
    work = np.bincount(problem.edge_column, rates * problem.engine_s, len(columns))
    mean_s = np.divide(work, total, out=np.full(len(columns), np.inf), where=total > 0)
    each = np.where(np.isfinite(mean_s), tolls * np.where(np.isfinite(mean_s), mean_s, 0.0), np.inf)
    models = np.array([problem.bases[column.base].spec.model for column in problem.columns])
    found = np.zeros(len(columns))
    for model in set(models.tolist()):
        mine = models == model
        least = each[mine].min()
        found[mine] = least / mean_s[mine] if np.isfinite(least) else 0.0
    return found
