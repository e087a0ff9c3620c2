"""The rules of a plan, one function each. Symbols and shapes are those of ``terms.py``."""

from __future__ import annotations

from typing import Any

import numpy as np
from cvxpy.atoms.affine.binary_operators import multiply

from solver.incidence import Incidence
from solver.problem import Problem
from solver.terms import Numbers, Unknowns


def demand_met(unknowns: Unknowns, numbers: Numbers, shape: Incidence) -> Any:
    """Flows and unserved requests of each class add up to its rate (C equalities; I7)."""
    return shape.by_class @ unknowns.flow + unknowns.unserved == numbers.rate


def unserved_limited(unknowns: Unknowns, numbers: Numbers) -> Any:
    """No more is turned away than allowed (C rows)."""
    return unknowns.unserved <= numbers.unserved_limit


def load_defined(unknowns: Unknowns, numbers: Numbers, shape: Incidence) -> Any:
    """Load is at least what the flows bring, plus the background (J rows, engine-seconds/s).

    Its dual is the price of one engine-second on the column, in seconds of delay.
    """
    brought = shape.by_column @ multiply(numbers.engine_s, unknowns.flow)
    return brought + numbers.background <= unknowns.load


def load_capped(unknowns: Unknowns, numbers: Numbers) -> Any:
    """Replicas stay below the column's utilization ceiling (J rows)."""
    return unknowns.load <= multiply(numbers.ceiling, unknowns.replicas)


def kv_capped(unknowns: Unknowns, numbers: Numbers, shape: Incidence) -> Any:
    """KV memory held, by Little's law, stays below its ceiling (J rows, in replicas).

    Its dual is the price of one replica's KV memory.
    """
    held = shape.by_column @ multiply(numbers.kv_share, unknowns.flow)
    return held <= multiply(numbers.kv_room, unknowns.replicas) + unknowns.overfull


def overfull_limited(unknowns: Unknowns, numbers: Numbers) -> Any:
    """KV ceilings are exceeded by no more than allowed (J rows)."""
    return unknowns.overfull <= numbers.overfull_limit


def congestion_bounded(unknowns: Unknowns, numbers: Numbers, problem: Problem) -> Any:
    """Congestion is at least every tangent of ``y * extra(load / y)`` (T rows).

    The perspective of a convex function is jointly convex in load and replicas, and its tangents
    are linear in both: ``slope * load + intercept * y``.
    """
    columns = len(problem.columns)
    owner = np.repeat(np.arange(columns), numbers.slope.size // max(1, columns))
    return unknowns.extra[owner] >= (
        multiply(numbers.slope, unknowns.load[owner])
        + multiply(numbers.intercept, unknowns.replicas[owner])
    )


def worst_tenant(unknowns: Unknowns, numbers: Numbers, shape: Incidence) -> Any:
    """``worst`` is at least every tenant group's unserved share (T rows)."""
    asked = shape.by_tenant @ numbers.rate
    return shape.by_tenant @ unknowns.unserved <= multiply(asked, unknowns.worst)


def stock_kept(unknowns: Unknowns, numbers: Numbers, shape: Incidence) -> Any:
    """Replicas fit into the linked cards of each pool (R rows; see ``StockRow``)."""
    return shape.stock @ unknowns.replicas <= numbers.slots


def models_ready(unknowns: Unknowns, numbers: Numbers, shape: Incidence) -> Any:
    """Every model has its minimum of replicas (M rows)."""
    return shape.by_model @ unknowns.replicas >= numbers.ready


def starts_counted(unknowns: Unknowns, numbers: Numbers, shape: Incidence) -> Any:
    """Replicas beyond those running must be started (B rows); ceilings may change freely."""
    return shape.by_base @ unknowns.replicas - numbers.running <= unknowns.started


def starts_limited(unknowns: Unknowns, numbers: Numbers) -> Any:
    """At most ``max_moves`` replicas are started (1 row)."""
    return np.ones(unknowns.started.size) @ unknowns.started <= numbers.moves


def budget_kept(unknowns: Unknowns, numbers: Numbers) -> Any:
    """Replicas cost no more than the budget (1 row, US dollars per hour)."""
    return numbers.dollars @ unknowns.replicas <= numbers.budget


def zones_spread(unknowns: Unknowns, shape: Incidence) -> Any:
    """No zone holds more than its share of a model's replicas (Z rows)."""
    return shape.zones @ unknowns.replicas <= 0


def engines_exist(unknowns: Unknowns, shape: Incidence) -> Any:
    """No more replicas of a base than there are engines of it (L rows)."""
    return shape.limited @ unknowns.replicas <= shape.limits
