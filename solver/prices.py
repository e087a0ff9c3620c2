"""From duals to prices by group.

The dual of a column's load row says how much the objective grows when one engine-second of work
is added to it. It is in seconds of delay per engine-second, because the objective is in requests
in the system. It contains congestion (the slope of ``Congestion.extra``), what a binding ceiling
costs, and the energy of the work if that is weighed.
"""

from __future__ import annotations

import numpy as np

from solver.answer import Price
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
    found = []
    for group, members in columns_by_group(routing).items():
        index = np.array(members)
        weight = np.maximum(routing.load[index], 1e-9)
        load, toll = (
            float(np.average(v[index], weights=weight)) for v in (routing.load_price, tolls)
        )
        memory = float(np.average(kv[index], weights=weight))
        found.append(Price(group, load + memory, load, memory, toll))
    return tuple(sorted(found, key=lambda price: price.group))
