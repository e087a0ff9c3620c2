"""How fast the planner is, and how good in how long, from a dozen GPUs to a thousand.

Three synthetic fleets of eight GPU types under two thirds of the load that the linear relaxation
can carry. Of each: the size of the problem, the linear relaxation, the search within its budget
beside plain branch and bound within the same, the distance of both to the best placement known
(a search of ``--best`` seconds) and to the proven bound, and the routing problem that the live
router solves: first time, and again with other rates.

Times are wall clock of one thread; the load of the machine is printed with them.
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
    budget_s: float


CASES = (
    Case(12, 20, 4, ("llama-3.2-3b", "llama-3.1-8b"), 2.0),
    Case(100, 50, 12, ("llama-3.2-1b", "llama-3.1-8b", "qwen2.5-14b", "llama-3.1-70b"), 5.0),
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
        10.0,
    ),
)


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one case; distances are relative to the best objective known."""

    gpus: int
    classes: int
    columns: int
    edges: int
    build_s: float
    state_s: float
    restate_s: float
    relaxation_s: float
    budget_s: float
    search_s: float
    search_off_best: float
    search_gap: float
    branching_off_best: float
    integrality: float
    instances: int
    route_first_ms: float
    route_again_ms: float


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


def measure(case: Case, best_s: float, seed: int) -> Row:
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
    task = Task(form, np.array(pools, dtype=np.int64), time_limit_s=case.budget_s)
    found, search_s = timed(lambda: search(task))
    branching = Highs(form).solve(time_limit_s=case.budget_s, gap=task.gap)
    longer = search(replace(task, time_limit_s=best_s, running=(found.replicas,), seed=1))
    best = min(longer.objective, found.objective, branching.objective)
    replicas = longer.replicas if longer.objective <= found.objective else found.replicas
    first_ms, again_ms = routing_ms(problem, replicas)
    return Row(
        case.gpus,
        case.classes,
        len(problem.columns),
        len(problem.edge_class),
        build_s,
        state_s,
        restate_s,
        relaxation_s,
        case.budget_s,
        search_s,
        found.objective / best - 1,
        1 - max(longer.bound, found.bound) / found.objective,
        branching.objective / best - 1,
        1 - relaxation.objective / best,
        int(replicas.sum()),
        first_ms,
        again_ms,
    )


def routing_ms(problem: Problem, replicas: np.ndarray) -> tuple[float, float]:
    """Routing over a placement: stating and solving, then the median of ten with other rates."""
    reduced, counts = occupied(problem, replicas)
    (_, model), first_s = timed(lambda: route(reduced, counts, Weights(), soft=True))
    again = []
    for turn in range(10):
        factor = 0.7 + 0.06 * turn
        classes = tuple(replace(c, rate_per_s=c.rate_per_s * factor) for c in reduced.classes)
        shifted = replace(reduced, classes=classes)
        again.append(
            timed(lambda s=shifted: route(s, counts, Weights(), soft=True, model=model))[1]
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
    case = Case(100, 50, groups, ("llama-3.1-8b",), 0.0)
    specs = [
        BackendSpec(
            f"{n}", "a100-80" if n % 2 else "l40s", "vllm", "llama-3.1-8b", zone=f"z{n % groups}"
        )
        for n in range(case.gpus)
    ]
    fleet = Fleet(tuple(specs))
    workload = workload_of(case, np.random.default_rng(seed))
    stock = stock_of(fleet, movable=False)
    problem, build_s = timed(lambda: build_problem(workload, stock, Limits(), tiered=False))
    counts = problem.running[[column.base for column in problem.columns]]
    first_ms, again_ms = routing_ms(problem, counts)
    edges = len(problem.edge_class)
    return LiveRow(100, len(problem.columns), 50, edges, first_ms, 1000 * build_s, again_ms)


def live_table(rows: Sequence[LiveRow]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| live routing: instances, groups, classes | edges | services | first | again |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.instances}, {r.groups}, {r.classes} | {r.edges} | {r.build_ms:.0f} ms "
        f"| {r.first_ms:.0f} ms | **{r.again_ms:.0f} ms** |"
        for r in rows
    ]
    return "\n".join(lines)


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| GPUs, classes | columns, edges | relaxation | budget | search: off best known, proven "
        "gap | branch and bound: off best | routing: instances, first, again |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.gpus}, {r.classes} | {r.columns}, {r.edges} | {r.relaxation_s:.2f} s "
        f"| {r.budget_s:g} s (took {r.search_s:.1f}) "
        f"| **{r.search_off_best:.2%}**, {r.search_gap:.2%} | {r.branching_off_best:.2%} "
        f"| {r.instances}, {r.route_first_ms:.0f} ms, **{r.route_again_ms:.0f} ms** |"
        for r in rows
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, nargs="*", help="only these sizes")
    parser.add_argument("--best", type=float, default=60.0, help="seconds for the best known")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    asked = parser.parse_args(arguments)
    chosen = [case for case in CASES if not asked.gpus or case.gpus in asked.gpus]
    rows = [measure(case, asked.best, asked.seed) for case in chosen]
    live = [measure_live(groups, asked.seed) for groups in (12, 100)]
    print(table(rows), live_table(live), sep="\n\n")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, seed {asked.seed}")
    if asked.json:
        figures = {"planning": [asdict(r) for r in rows], "live": [asdict(r) for r in live]}
        asked.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
