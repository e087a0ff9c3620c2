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

from benchmarks.solver_cases import CASES, Case, fleet_of, loaded, workload_of
from benchmarks.solver_rivals import SOLVERS, Attempt, attempted
from router.domain.fleet import BackendSpec, Fleet
from solver.assemble import build_problem
from solver.highs import Highs
from solver.model import Model
from solver.options import Limits, Weights
from solver.problem import Problem
from solver.routing import occupied, route
from solver.search import Task, search
from solver.stock import stock_of

T = TypeVar("T")


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
    if rows:
        print(
            f"\nWall clock, one thread; load average {os.getloadavg()[0]:.1f} on "
            f"{os.cpu_count()} cores, seed {asked.seed}."
        )
    if asked.json:
        figures = {"planning": [asdict(r) for r in rows], "live": [asdict(r) for r in live]}
        asked.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
