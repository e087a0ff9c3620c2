"""Synthetic fleets and workloads for the planner, from a dozen GPUs to a thousand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from router.domain.fleet import BackendSpec, Fleet
from solver.assemble import build_problem
from solver.highs import Highs
from solver.model import Model
from solver.options import Limits, Weights
from solver.stock import stock_of
from solver.workload import WorkClass, Workload

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
