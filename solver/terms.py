"""Unknowns and numbers of the ILP: what ``constraints.py`` and ``objective.py`` are written in.

Numbers are CVXPY parameters, so that a problem of the same shape is solved again without being
canonicalised again (disciplined parametrized programming, Agrawal et al. 2019).

Two uses share every rule. To *place*, replicas are integers and numbers are per replica. To
*route* over a given placement, ``replicas`` is the constant 1 and the numbers of a column are
totals over its replicas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np

from solver.incidence import Incidence
from solver.points import PLACE_POINTS, ROUTE_POINTS
from solver.problem import Problem


@dataclass(frozen=True, slots=True)
class Unknowns:
    """What is decided; all at least 0.

    Attributes:
        flow: (E,) requests per second on each edge.
        unserved: (C,) requests per second turned away.
        load: (J,) engine-seconds per second on each column.
        extra: (J,) requests in the system because of congestion.
        overfull: (J,) KV memory demanded beyond its ceiling, in replicas.
        worst: () largest unserved share of any tenant group.
        replicas: (J,) integers, or ones when the placement is given.
        started: (B,) replicas to start; ``None`` when the placement is given.
    """

    flow: Any
    unserved: Any
    load: Any
    extra: Any
    overfull: Any
    worst: Any
    replicas: Any
    started: Any


@dataclass(frozen=True, slots=True)
class Numbers:
    """What is given; all at least 0 but the intercepts.

    Attributes:
        rate: (C,) arrivals per second.
        unserved_limit: (C,) most that may be turned away.
        engine_s: (E,) engine-seconds per request.
        kv_share: (E,) replicas' KV memory held per request per second.
        background: (J,) engine-seconds per second already taken by others.
        ceiling: (J,) most load per replica.
        kv_room: (J,) most KV memory per replica, in replicas.
        overfull_limit: (J,) most by which it may be exceeded.
        slope, intercept: (T,) tangents of congestion, T a multiple of J.
        slots: (R,) right-hand sides of the stock rows.
        running: (B,) replicas that run now.
        ready: () least replicas per model.
        dollars: (J,) US dollars per hour of one replica.
        budget: () US dollars per hour.
        moves: () most replicas to start.
        flow_cost: (E,) per request per second.
        extra_cost, load_cost, replica_cost, overfull_cost: (J,) per unit of each.
        start_cost: (B,) per replica started.
        unserved_cost: (C,) per request per second turned away.
        worst_cost: () per unit of ``worst``.
    """

    rate: Any
    unserved_limit: Any
    engine_s: Any
    kv_share: Any
    background: Any
    ceiling: Any
    kv_room: Any
    overfull_limit: Any
    slope: Any
    intercept: Any
    slots: Any
    running: Any
    ready: Any
    dollars: Any
    budget: Any
    moves: Any
    flow_cost: Any
    extra_cost: Any
    load_cost: Any
    replica_cost: Any
    overfull_cost: Any
    start_cost: Any
    unserved_cost: Any
    worst_cost: Any


def declare_unknowns(problem: Problem, *, placing: bool) -> Unknowns:
    """Declare the unknowns."""
    edges, columns = len(problem.edge_class), len(problem.columns)
    return Unknowns(
        flow=cp.Variable(edges, nonneg=True, name="flow"),
        unserved=cp.Variable(len(problem.classes), nonneg=True, name="unserved"),
        load=cp.Variable(columns, nonneg=True, name="load"),
        extra=cp.Variable(columns, nonneg=True, name="extra"),
        overfull=cp.Variable(columns, nonneg=True, name="overfull"),
        worst=cp.Variable(nonneg=True, name="worst"),
        replicas=(
            cp.Variable(columns, integer=True, name="replicas") if placing else np.ones(columns)
        ),
        started=cp.Variable(len(problem.bases), nonneg=True, name="started") if placing else None,
    )


def declare_numbers(problem: Problem, shape: Incidence, *, placing: bool) -> Numbers:
    """Declare the parameters, without values."""
    edges, columns = len(problem.edge_class), len(problem.columns)
    classes, bases = len(problem.classes), len(problem.bases)
    tangents = columns * len(PLACE_POINTS if placing else ROUTE_POINTS)
    sizes: dict[str, int | tuple[()]] = {
        "rate": classes,
        "unserved_limit": classes,
        "engine_s": edges,
        "kv_share": edges,
        "background": columns,
        "ceiling": columns,
        "kv_room": columns,
        "overfull_limit": columns,
        "slope": tangents,
        "slots": len(shape.stock_rows),
        "running": bases,
        "ready": (),
        "dollars": columns,
        "budget": (),
        "moves": (),
        "flow_cost": edges,
        "extra_cost": columns,
        "load_cost": columns,
        "replica_cost": columns,
        "overfull_cost": columns,
        "start_cost": bases,
        "unserved_cost": classes,
        "worst_cost": (),
    }
    parameters = {name: cp.Parameter(size, nonneg=True, name=name) for name, size in sizes.items()}
    return Numbers(intercept=cp.Parameter(tangents, name="intercept"), **parameters)
