"""From a problem to a placement that was checked."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from router.domain.errors import InfeasiblePlanError, SolverError
from solver.check import broken_rules
from solver.highs import Highs
from solver.options import Weights
from solver.problem import Ints, Problem
from solver.routing import state
from solver.search import Clock, Found, Task, search
from solver.standard import StandardForm

if TYPE_CHECKING:
    from solver.model import Model

Searcher = Callable[[Task], Found]

_SHARE_OF_STAYING = 0.1


@dataclass(frozen=True, slots=True)
class Placement:
    """Replicas and how good they are known to be.

    Attributes:
        replicas: (J,) of each column.
        objective: with the best routing over them.
        bound: no placement is better.
        kept: whether it starts no replica because doing so would not be worth it.
        model: reusable for a problem of the same shape.
    """

    replicas: Ints
    objective: float
    bound: float
    kept: bool
    model: Model


def place(
    problem: Problem,
    weights: Weights,
    *,
    searcher: Searcher = search,
    model: Model | None = None,
    clock: Clock = time.perf_counter,
) -> Placement:
    """Choose how many replicas of what to run.

    Args:
        problem: with a column per useful ceiling.
        weights: exchange rates.
        searcher: ``search``, or ``background.search_apart`` for a process of its own.
        model: of an earlier call, reused if the shape is the same.
        clock: seconds; only differences matter.

    Raises:
        InfeasiblePlanError: no placement keeps the rules; says which and what would help.
        SolverError: nothing usable in time.
    """
    began = clock()
    limits = problem.limits
    if model is None or not model.fits(problem):
        model = state(problem, placing=True)
    form = model.fill(problem, weights)
    stay = _stay(form, limits.time_limit_s * _SHARE_OF_STAYING)
    pool_of = [problem.bases[column.base].candidate.pool for column in problem.columns]
    task = Task(
        form,
        np.array(pool_of, dtype=np.int64),
        running=(stay.replicas,) if len(stay.replicas) else (),
        time_limit_s=max(0.1, limits.time_limit_s - (clock() - began)),
        gap=limits.mip_gap,
    )
    found = searcher(task)
    if found.infeasible:
        from solver.explain import explain_rules  # noqa: PLC0415 - imports CVXPY: seconds

        raise InfeasiblePlanError(explain_rules(problem))
    if not len(found.replicas):
        raise SolverError(
            f"no placement found in {limits.time_limit_s:g} s; raise the time limit or group "
            "more cards into one zone"
        )
    kept = _worth_staying(stay, found, limits.hysteresis)
    chosen = stay if kept else found
    broken = broken_rules(problem, model.shape, chosen.replicas)
    if broken:
        raise SolverError(f"the solver's placement breaks its rules: {'; '.join(broken)}")
    return Placement(chosen.replicas, chosen.objective, found.bound, kept, model)


def _stay(form: StandardForm, time_limit_s: float) -> Found:
    """The best placement that starts nothing: the one to beat."""
    bases = form.columns["started"]
    none = np.zeros(bases.stop - bases.start)
    answer = Highs(form.bounded("started", none, none)).solve(time_limit_s=time_limit_s, gap=1e-3)
    if not answer.usable:
        return Found()
    replicas = np.round(answer.x[form.columns["replicas"]]).astype(np.int64)
    return Found(replicas, answer.objective)


def _worth_staying(stay: Found, found: Found, hysteresis: float) -> bool:
    if not len(stay.replicas):
        return False
    return stay.objective <= found.objective + hysteresis * abs(found.objective)
