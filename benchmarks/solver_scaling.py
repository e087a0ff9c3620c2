"""How fast the planner is, and how good in how long, from a dozen GPUs to a thousand.

Three synthetic fleets of eight GPU types under two thirds of the load that the linear relaxation
can carry. Of each: the search within 5 and 10 seconds beside HiGHS alone, SCIP and CP-SAT (both of
OR-tools, from the same rows) within the same, as the distance to the best placement known (a
search of ``--best`` seconds from everything that was found), and the routing problem that the
live router solves: first time, and again with other rates.

Placement times are wall clock of one thread, building the solver's own model included; the load
of the machine is printed with them. Routing times are CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from router.domain.fleet import BackendSpec, Fleet
from solver.assemble import build_problem
from solver.highs import Highs
from solver.model import Model
from solver.options import Limits, Weights
from solver.problem import Problem
from solver.routing import occupied, route
from solver.search import Task, search
from solver.stock import stock_of
from solver.workload import WorkClass, Workload

T = TypeVar("T")
GPUS = ("a100-80", "v100-32", "t4", "l4", "a10g", "a100-40", "h100", "l40s")
LARGE = ("a100-80", "a100-40", "h100")
PROMPTS = (128, 512, 1024, 2048, 4096, 8192)
OUTPUTS = (32, 128, 256, 512, 1024)
SLOS = (("interactive", 0.6), ("throughput", 0.25), ("bulk", 0.15))
SHARE_OF_CAPACITY = 2 / 3


@dataclass(frozen=True, slots=True)
class Case:
    """One size of fleet and workload."""

    gpus: int
    classes: int
    pools: int
    models: tuple[str, ...]


CASES = (
    Case(12, 20, 4, ("llama-3.2-3b", "llama-3.1-8b")),
    Case(100, 50, 12, ("llama-3.2-1b", "llama-3.1-8b", "qwen2.5-14b", "llama-3.1-70b")),
    Case(
        1000,
        100,
        24,
        (
            "llama-3.2-1b",
            "llama-3.2-3b",
            "llama-3.1-8b",
            "qwen2.5-14b",
            "qwen2.5-32b",
            "llama-3.1-70b",
        ),
    ),
)


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


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one case."""

    gpus: int
    classes: int
    columns: int
    edges: int
    build_s: float
    state_s: float
    restate_s: float
    relaxation_s: float
    best: float
    bound: float
    attempts: tuple[Attempt, ...]
    instances: int
    route_first_ms: float
    route_again_ms: float

    def off_best(self, attempt: Attempt) -> float | None:
        """Relative distance to the best placement known."""
        return None if attempt.objective is None else attempt.objective / self.best - 1


def fleet_of(case: Case) -> Fleet:
    """Equal pools of the GPU types in turn; large cards come linked in fours or eights."""
    per_pool = case.gpus // case.pools
    specs: list[BackendSpec] = []
    for p in range(case.pools):
        gpu, zone = GPUS[p % len(GPUS)], f"z{p // len(GPUS)}"
        linked = (8 if per_pool >= 16 else min(4, per_pool)) if gpu in LARGE else 2
        linked = min(linked, per_pool)
        model = case.models[-1] if gpu in LARGE and linked > 2 else "llama-3.1-8b"
        specs += [
            BackendSpec(f"{gpu}-{zone}-{n}", gpu, "vllm", model, linked, zone=zone)
            for n in range(per_pool // linked)
        ]
    return Fleet(tuple(specs))


def workload_of(case: Case, rng: np.random.Generator) -> Workload:
    """Random classes with log-normal rates; every model is asked for."""
    found: dict[str, WorkClass] = {}
    names, shares = zip(*SLOS, strict=True)
    while len(found) < case.classes:
        prompt, output = float(rng.choice(PROMPTS)), float(rng.choice(OUTPUTS))
        one = WorkClass(
            case.models[len(found) % len(case.models)],
            str(rng.choice(names, p=shares)),
            "",
            prompt_limit=prompt,
            output_limit=output,
            prompt_tokens=prompt * rng.uniform(0.55, 0.95),
            output_tokens=output * rng.uniform(0.5, 0.95),
            longest_tokens=int(prompt + output),
            rate_per_s=float(rng.lognormal(0, 1)),
        )
        found.setdefault(one.name, one)
    return Workload(tuple(found.values()))


def loaded(workload: Workload, fleet: Fleet) -> Workload:
    """Scale the rates to a share of what the linear relaxation can carry."""
    carried = 0.0
    low, high = 1e-3, 1e3
    for _ in range(12):
        scale = (low * high) ** 0.5
        problem = build_problem(workload.scaled(scale), stock_of(fleet, workload.models), Limits())
        form = Model(problem, placing=True).fill(problem, Weights())
        answer = Highs(form, relaxed=True).solve(time_limit_s=30)
        away = answer.x[form.columns["unserved"]].sum() / workload.scaled(scale).rate_per_s
        low, high = (scale, high) if away < 1e-6 else (low, scale)
        carried = low
    return workload.scaled(SHARE_OF_CAPACITY * carried)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Result and wall seconds."""
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


def cpu_timed(work: Callable[[], T]) -> tuple[T, float]:
    """Result and CPU seconds, which do not depend on what else the machine does."""
    began = time.process_time()
    result = work()
    return result, time.process_time() - began


def measure(case: Case, best_s: float, seed: int, budgets_s: Sequence[float]) -> Row:
    """Measure one case."""
    fleet = fleet_of(case)
    workload = loaded(workload_of(case, np.random.default_rng(seed)), fleet)
    stock = stock_of(fleet, workload.models)
    problem, build_s = timed(lambda: build_problem(workload, stock, Limits()))
    model = Model(problem, placing=True)
    form, state_s = timed(lambda: model.fill(problem, Weights()))
    _, restate_s = timed(lambda: model.fill(problem, Weights()))
    relaxation, relaxation_s = timed(lambda: Highs(form, relaxed=True).solve(time_limit_s=60))
    pools = [problem.bases[column.base].candidate.pool for column in problem.columns]
    task = Task(form, np.array(pools, dtype=np.int64))
    attempts, placements = [], []
    for budget_s in budgets_s:
        for name, solve in SOLVERS.items():
            attempt, replicas = attempted(name, solve, task, budget_s)
            attempts.append(attempt)
            placements.append(replicas)
    found = [r for r in placements if r is not None]
    # The best known: a long search that starts from everything that anybody found.
    longer = search(replace(task, time_limit_s=best_s, running=tuple(found), seed=1))
    reached = [one.objective for one in attempts if one.objective is not None]
    first_ms, again_ms = routing_ms(problem, longer.replicas)
    return Row(
        case.gpus,
        case.classes,
        len(problem.columns),
        len(problem.edge_class),
        build_s,
        state_s,
        restate_s,
        relaxation_s,
        min(longer.objective, *reached),
        max(longer.bound, relaxation.objective),
        tuple(attempts),
        int(longer.replicas.sum()),
        first_ms,
        again_ms,
    )


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


def routing_ms(problem: Problem, replicas: np.ndarray) -> tuple[float, float]:
    """Routing over a placement: stating and solving, then the median of ten with other rates."""
    reduced, counts = occupied(problem, replicas)
    (_, model), first_s = cpu_timed(lambda: route(reduced, counts, Weights(), soft=True))
    again = []
    for turn in range(10):
        factor = 0.7 + 0.06 * turn
        classes = tuple(replace(c, rate_per_s=c.rate_per_s * factor) for c in reduced.classes)
        shifted = replace(reduced, classes=classes)
        again.append(
            cpu_timed(lambda s=shifted: route(s, counts, Weights(), soft=True, model=model))[1]
        )
    return 1000 * first_s, 1000 * float(np.median(again))


@dataclass(frozen=True, slots=True)
class LiveRow:
    """One round of the live planner over a fixed placement."""

    instances: int
    groups: int
    classes: int
    edges: int
    first_ms: float
    build_ms: float
    again_ms: float


def measure_live(groups: int, seed: int) -> LiveRow:
    """100 engines of one model in so many groups, 50 classes: the live router's own problem."""
    case = Case(100, 50, groups, ("llama-3.1-8b",))
    specs = [
        BackendSpec(
            f"{n}", "a100-80" if n % 2 else "l40s", "vllm", "llama-3.1-8b", zone=f"z{n % groups}"
        )
        for n in range(case.gpus)
    ]
    fleet = Fleet(tuple(specs))
    workload = workload_of(case, np.random.default_rng(seed))
    stock = stock_of(fleet, movable=False)
    problem, build_s = cpu_timed(lambda: build_problem(workload, stock, Limits(), tiered=False))
    counts = problem.running[[column.base for column in problem.columns]]
    first_ms, again_ms = routing_ms(problem, counts)
    edges = len(problem.edge_class)
    return LiveRow(100, len(problem.columns), 50, edges, first_ms, 1000 * build_s, again_ms)


def table(rows: Sequence[Row]) -> str:
    """Distance to the best placement known, by solver and budget."""
    lines = [
        "| GPUs, classes | integers, edges | budget | search (ours) | HiGHS | SCIP | CP-SAT |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for budget_s in dict.fromkeys(one.budget_s for one in row.attempts):
            cells = [_told(row, one) for one in row.attempts if one.budget_s == budget_s]
            lines.append(
                f"| {row.gpus}, {row.classes} | {row.columns}, {row.edges} | {budget_s:g} s | "
                + " | ".join(cells)
                + " |"
            )
    proven = ", ".join(f"{1 - row.bound / row.best:.1%}" for row in rows)
    return "\n".join([*lines, "", f"The best known is proven to within {proven} of the optimum."])


def _told(row: Row, attempt: Attempt) -> str:
    off = row.off_best(attempt)
    took = f"{attempt.wall_s:.1f} s"
    return f"nothing ({took})" if off is None else f"{off:.2%} ({took})"


def routing_table(rows: Sequence[Row], live: Sequence[LiveRow]) -> str:
    """The routing problem that the live router solves.

    Of the live rows, working out what each class costs on each group is included.
    """
    lines = [
        "| routing (CPU): instances, groups, classes | edges | stated and solved | solved again |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {r.instances}, {r.columns} columns, {r.classes} | {r.edges} "
        f"| {r.route_first_ms:.0f} ms | **{r.route_again_ms:.0f} ms** |"
        for r in rows
    ]
    lines += [
        f"| {r.instances}, {r.groups} groups, {r.classes} | {r.edges} "
        f"| {r.build_ms + r.first_ms:.0f} ms | **{r.build_ms + r.again_ms:.0f} ms** |"
        for r in live
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, nargs="*", help="only these sizes")
    parser.add_argument("--best", type=float, default=60.0, help="seconds for the best known")
    parser.add_argument("--budgets", type=float, nargs="*", default=[5.0, 10.0])
    parser.add_argument("--live", action="store_true", help="only the live router's own problem")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    asked = parser.parse_args(arguments)
    chosen = [case for case in CASES if not asked.gpus or case.gpus in asked.gpus]
    chosen = [] if asked.live else chosen
    rows = [measure(case, asked.best, asked.seed, asked.budgets) for case in chosen]
    live = [measure_live(groups, asked.seed) for groups in (12, 100)] if asked.live else []
    print(*([table(rows)] if rows else []), routing_table(rows, live), sep="\n\n")
    if not rows:
        return
    print(
        f"\nWall clock, one thread; load average {os.getloadavg()[0]:.1f} on "
        f"{os.cpu_count()} cores, seed {asked.seed}."
    )
    if asked.json:
        figures = {"planning": [asdict(r) for r in rows], "live": [asdict(r) for r in live]}
        asked.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
