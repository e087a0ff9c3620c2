"""A plan is believed only after it was checked against the rules, without the solver."""

from __future__ import annotations

import numpy as np

from solver.incidence import Incidence
from solver.problem import Floats, Ints, Problem

SLACK = 1e-6


def broken_rules(problem: Problem, shape: Incidence, replicas: Ints) -> list[str]:
    """Rules that a placement (J,) breaks, in words; empty when it keeps them all."""
    found: list[str] = []
    if len(replicas) != len(problem.columns) or (replicas < 0).any():
        return ["the placement has negative or missing replica counts"]
    for row, taken in zip(shape.stock_rows, shape.stock @ replicas, strict=True):
        if taken > row.slots + SLACK:
            pool = problem.stock.pools[row.pool].name
            found.append(
                f"stock of {pool}: {taken:.0f} engines of {row.size} cards, {row.slots} fit"
            )
    for model, count in zip(problem.models, shape.by_model @ replicas, strict=True):
        if count < problem.limits.min_replicas - SLACK:
            found.append(
                f"model {model}: {count:.0f} replicas, {problem.limits.min_replicas} needed"
            )
    budget = problem.limits.budget_usd_per_hour
    cost = dollars_per_hour(problem, replicas)
    if budget is not None and cost > budget + SLACK:
        found.append(f"budget: {cost:.2f} $/h, {budget:.2f} allowed")
    moves = int(np.maximum(shape.by_base @ replicas - problem.running, 0).sum())
    if problem.limits.max_moves is not None and moves > problem.limits.max_moves:
        found.append(f"moves: {moves} replicas to start, {problem.limits.max_moves} allowed")
    if (shape.limited @ replicas > shape.limits + SLACK).any():
        found.append("engines: more replicas of a kind than there are engines of it")
    if (shape.zones @ replicas > SLACK).any():
        share = problem.limits.max_zone_share
        found.append(f"zones: more than {share:.0%} of a model's replicas in one zone")
    return found


def broken_routing(problem: Problem, shape: Incidence, flow: Floats, unserved: Floats) -> list[str]:
    """Classes whose flows and unserved requests do not add up to their rate (I7)."""
    total = shape.by_class @ flow + unserved
    wrong = np.abs(total - problem.rates) > 1e-4 * (1.0 + problem.rates)
    return [problem.classes[c].name for c in np.flatnonzero(wrong)]


def dollars_per_hour(problem: Problem, replicas: Ints) -> float:
    """What a placement costs."""
    each = np.array([problem.bases[column.base].usd_per_hour for column in problem.columns])
    return float(each @ replicas)
