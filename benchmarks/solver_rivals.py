"""Who searches for placements: Motley, HiGHS alone and OR-tools' solvers, on the same rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from solver.highs import Highs
from solver.search import Task, search


@dataclass(frozen=True, slots=True)
class Attempt:
    """One solver within one budget.

    Attributes:
        solver: its name.
        budget_s: wall seconds it was given.
        wall_s, cpu_s: what it took.
        objective: of its placement with the best routing; ``None`` if it found none.
    """

    solver: str
    budget_s: float
    wall_s: float
    cpu_s: float
    objective: float | None


Solve = Callable[[Task], "np.ndarray | None"]


def by_search(task: Task) -> np.ndarray | None:
    """Motley's own: branch and bound of HiGHS, then neighbourhoods."""
    replicas = search(task).replicas
    return replicas if len(replicas) else None


def by_highs(task: Task) -> np.ndarray | None:
    """Branch and bound of HiGHS alone."""
    answer = Highs(task.form).solve(time_limit_s=task.time_limit_s, gap=task.gap)
    if not answer.usable:
        return None
    return np.round(answer.x[task.form.columns["replicas"]]).astype(np.int64)


MOST = 1e4
"""Replaces infinite bounds for CP-SAT, which needs finite ones."""


def by_ortools(solver: str, *, slack: float = 0.0, parameters: str = "") -> Solve:
    """A solver of OR-tools on the very same rows.

    CP-SAT knows integers only: it counts in thousandths, and equations must be loosened for it.
    What anybody finds is priced by the exact linear program afterwards.
    """

    def solve(task: Task) -> np.ndarray | None:
        from ortools.linear_solver import pywraplp  # noqa: PLC0415 - only this needs it

        began = time.perf_counter()
        form = task.form
        mip = pywraplp.Solver.CreateSolver(solver)
        infinite = MOST if parameters else mip.infinity()
        mip.SetSolverSpecificParametersAsString(parameters)

        def bound(value: float) -> float:
            return float(np.clip(value, -infinite, infinite))

        unknowns = [
            mip.Var(bound(low), bound(high), bool(whole), "")
            for low, high, whole in zip(form.lower, form.upper, form.integers, strict=True)
        ]
        rows = form.matrix.tocsr()
        for r in range(rows.shape[0]):
            row = mip.Constraint(
                max(float(form.row_lower[r]) - slack, -mip.infinity()),
                min(float(form.row_upper[r]) + slack, mip.infinity()),
            )
            for k in range(rows.indptr[r], rows.indptr[r + 1]):
                row.SetCoefficient(unknowns[rows.indices[k]], float(rows.data[k]))
        goal = mip.Objective()
        for unknown, cost in zip(unknowns, form.cost, strict=True):
            goal.SetCoefficient(unknown, float(cost))
        goal.SetMinimization()
        mip.SetNumThreads(1)
        asked = pywraplp.MPSolverParameters()
        asked.SetDoubleParam(asked.RELATIVE_MIP_GAP, task.gap)
        left_s = task.time_limit_s - (time.perf_counter() - began)
        mip.SetTimeLimit(max(1, int(1000 * left_s)))
        if mip.Solve(asked) not in (mip.OPTIMAL, mip.FEASIBLE):
            return None
        place = form.columns["replicas"]
        return np.array([round(u.solution_value()) for u in unknowns[place]], dtype=np.int64)

    return solve


SOLVERS: dict[str, Solve] = {
    "search": by_search,
    "HiGHS": by_highs,
    "SCIP": by_ortools("SCIP"),
    "CP-SAT": by_ortools("SAT", slack=2e-3, parameters="mip_var_scaling: 1000 num_workers: 1"),
}


def attempted(
    name: str, solve: Solve, task: Task, budget_s: float
) -> tuple[Attempt, np.ndarray | None]:
    """Let one solver try, and price what it found by the same linear program as everybody's."""
    wall, cpu = time.perf_counter(), time.process_time()
    replicas = solve(replace(task, time_limit_s=budget_s))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    objective = None
    if replicas is not None:
        given = replicas.astype(float)
        priced = Highs(task.form.bounded("replicas", given, given), relaxed=True)
        answer = priced.solve(time_limit_s=30)
        objective = answer.objective if answer.usable else None
    return Attempt(name, budget_s, wall, cpu, objective), replicas
