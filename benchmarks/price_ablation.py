"""Do the planner's prices help? Each policy that reads them, with and without, paired.

Workloads of one and of three models, of one and of three service classes, and of two kinds of
requests mixed, on mixed fleets at three loads. Every pair replays the same arrivals and lengths
with the same wrong belief and the same seed; the only difference is whether the rolling planner
sets prices. Ratios below 1 mean that prices help. Run: ``python -m benchmarks.price_ablation``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from router.config.load import MotleyConfig, load_config
from simulator.batch import make_planner
from simulator.options import ReplayOptions
from simulator.run import run_policy
from simulator.summary import summarize
from simulator.workload import TraceSpec, build_trace
from solver.assemble import build_problem
from solver.options import Limits, Weights
from solver.routing import route
from solver.stock import stock_of
from solver.workload import build_workload

SMALL, MIDDLE, LARGE = "llama-3.2-3b", "llama-3.1-8b", "qwen2.5-14b"
CLASSES = {"interactive": 3.0, "throughput": 1.0, "bulk": 1.0}
POLICIES = ("motley", "marginal-delay")
LOADS = (0.5, 0.7, 0.85)
RATIOS = ("ttft p99", "e2e mean", "e2e p99", "misses")

Entry = tuple[str, int, str, int, str]
"""GPU, engines, engine, cards of each, model."""

ONE_MODEL: tuple[Entry, ...] = (
    ("a100-80", 2, "sglang", 1, MIDDLE),
    ("a100-40", 1, "sglang", 1, MIDDLE),
    ("v100-32", 2, "vllm", 1, MIDDLE),
    ("t4", 4, "vllm", 2, MIDDLE),
)
THREE_MODELS: tuple[Entry, ...] = (
    ("a100-80", 1, "sglang", 1, LARGE),
    ("l40s", 1, "vllm", 1, LARGE),
    ("a100-80", 1, "sglang", 1, MIDDLE),
    ("v100-32", 1, "vllm", 1, MIDDLE),
    ("t4", 2, "vllm", 2, MIDDLE),
    ("l4", 1, "vllm", 1, SMALL),
    ("v100-32", 1, "vllm", 1, SMALL),
    ("t4", 2, "vllm", 1, SMALL),
)


@dataclass(frozen=True, slots=True)
class Case:
    """One workload on one fleet."""

    name: str
    entries: tuple[Entry, ...]
    source: str
    models: tuple[tuple[str, float], ...] = ()
    classes: bool = False
    mixed_with: tuple[str, ...] = ()

    def config(self, policy: str) -> MotleyConfig:
        """The fleet file, with a queue that drops nobody."""
        names = ("gpu", "count", "engine", "tensor_parallel", "model")
        return load_config(
            {
                "backends": [dict(zip(names, entry, strict=True)) for entry in self.entries],
                # marginal-delay leaves prices out unless it is told to read them.
                "policy": {"name": policy, "params": {"price_weight": 1.0}},
                "planner": {"interval_s": 10.0, "window_s": 60.0},
                "reliability": {"queue_timeout_s": 86_400, "queue_size": 1_000_000},
            }
        )

    def spec(self, rate_scale: float, duration_s: float) -> TraceSpec:
        """The trace at a scale."""
        return TraceSpec(
            self.source,
            duration_s=duration_s,
            rate_scale=rate_scale,
            models=dict(self.models),
            classes=CLASSES if self.classes else {},
            mixed_with=self.mixed_with,
        )


SHARES = ((SMALL, 4.0), (MIDDLE, 3.0), (LARGE, 2.0))
CASES = (
    Case("1 model, 1 class", ONE_MODEL, "azure-conv-like"),
    Case("1 model, 3 classes", ONE_MODEL, "azure-conv-like", classes=True),
    Case(
        "1 model, chat and code mixed",
        ONE_MODEL,
        "azure-conv-like",
        mixed_with=("azure-code-like",),
    ),
    Case("3 models, 1 class", THREE_MODELS, "azure-conv-like", SHARES),
    Case("3 models, 3 classes", THREE_MODELS, "azure-conv-like", SHARES, classes=True),
    Case("3 models, 3 classes, code", THREE_MODELS, "azure-code-like", SHARES, classes=True),
)


def scale_for(case: Case, load: float, seed: int) -> float:
    """Rate scale at which the busiest model's engines are busy this share of the time."""
    config = case.config("motley")
    trace, _ = build_trace(case.spec(1.0, 600.0), seed)
    workload = build_workload(trace.records(), default_model=config.fleet.backends[0].model)
    stock = stock_of(config.fleet, movable=False)
    low, high = 1e-2, 1e2
    for _ in range(12):
        scale = (low * high) ** 0.5
        problem = build_problem(workload.scaled(scale), stock, Limits(), tiered=False)
        counts = problem.running[[column.base for column in problem.columns]]
        routing, _ = route(problem, counts, Weights(cost=0.0), soft=True)
        busy: dict[str, list[float]] = {}
        for j, column in enumerate(problem.columns):
            sums = busy.setdefault(problem.bases[column.base].spec.model, [0.0, 0.0])
            sums[0] += routing.load[j]
            sums[1] += counts[j]
        busiest = max(load / count for load, count in busy.values())
        low, high = (scale, high) if busiest < load else (low, scale)
    return low


def measured(case: Case, policy: str, load: float, requests: int, seed: int) -> dict[str, Any]:
    """Both arms of one pair, and their ratios."""
    config = case.config(policy)
    scale = scale_for(case, load, seed)
    whole, _ = build_trace(case.spec(scale, 3600.0), seed)
    at = min(requests, len(whole) - 1)
    duration_s = (whole.arrival_s[at] - whole.arrival_s[0]) * scale
    trace, _ = build_trace(case.spec(scale, duration_s), seed)
    arms = {}
    for plan in (False, True):
        options = ReplayOptions(seed=seed, plan=plan)
        result = run_policy(trace, config, policy, options, make_planner=make_planner)
        found = summarize(result)
        arms[plan] = {
            "ttft p99": found["ttft_s"]["p99"],
            "e2e mean": found["e2e_s"]["mean"],
            "e2e p99": found["e2e_s"]["p99"],
            "misses": 1.0 - found["slo_attainment"],
        }
    ratios = {
        name: arms[True][name] / arms[False][name] if arms[False][name] > 0 else None
        for name in RATIOS
    }
    return {
        "case": case.name,
        "policy": policy,
        "load": load,
        "seed": seed,
        "without": arms[False],
        "with": arms[True],
        "ratios": ratios,
    }


def pairs(
    requests: int, seeds: int, policies: Sequence[str], cases: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Every pair."""
    for case in CASES:
        if cases and case.name not in cases:
            continue
        for policy in policies:
            for load in LOADS:
                for seed in range(seeds):
                    yield measured(case, policy, load, requests, seed)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Geometric means over loads and seeds, and in brackets the worst pair."""
    lines = [
        "| workload | policy | TTFT p99 | E2E mean | E2E p99 | missed SLOs |",
        "|---|---|--:|--:|--:|--:|",
    ]
    keys = list(dict.fromkeys((row["case"], row["policy"]) for row in rows))
    for case, policy in keys:
        mine = [row for row in rows if (row["case"], row["policy"]) == (case, policy)]
        cells = [_geometric([r["ratios"][name] for r in mine]) for name in RATIOS[:3]]
        before = np.mean([r["without"]["misses"] for r in mine])
        after = np.mean([r["with"]["misses"] for r in mine])
        cells.append(f"{before:.2%} to {after:.2%}")
        lines.append(f"| {case} | `{policy}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _geometric(ratios: Sequence[float]) -> str:
    return f"{np.exp(np.mean(np.log(ratios))):.3f} ({max(ratios):.2f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every pair and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--policies", nargs="*", default=POLICIES, choices=POLICIES)
    parser.add_argument("--cases", nargs="*", help="only these, by name")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    asked = parser.parse_args(arguments)
    rows = list(pairs(asked.requests, asked.seeds, asked.policies, asked.cases or ()))
    print(table(rows))
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
