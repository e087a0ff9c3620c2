"""Replay every scenario with every policy and say who wins, loses, and by how much.

::

    python -m benchmarks.policies.run                    everything (about 14 CPU-minutes)
    python -m benchmarks.policies.run --quick            one seed, few requests, the strong policies
    python -m benchmarks.policies.run --held-out         scenarios that nothing was tuned on
    python -m benchmarks.policies.run --ablation         Motley without each of its parts
    python -m benchmarks.policies.run --headroom         how low the P99s could be at all

Finished cells are kept in ``--out`` and not run again while the code is the same, so a run that was
stopped goes on where it was. Every policy sees the same arrivals and lengths, a belief 25 % wrong,
scrapes 1 s old (or as often as that router polls), predicted lengths. The peers are given every
advantage: their weights are the believed speeds of the hardware, corrected by the same feedback.
In the mix of service classes Motley's queue honours the classes and the peers, which have none,
are as they are; their figures there are those of the interactive class.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.policies.bounds import ALONE, alone
from benchmarks.policies.scenarios import (
    FLEETS,
    LARGE,
    LOADS,
    MIXED,
    SLO_MIX,
    WORKLOADS,
    Scenario,
    config_of,
    held_out_scenarios,
    scenarios,
    trace_of,
)
from benchmarks.policies.slo_mix import JUDGED
from benchmarks.policies.tables import (
    ablation_table,
    evidence_tables,
    headroom_table,
    summary_table,
    workload_ablation,
)
from benchmarks.policies.variants import ABLATIONS, STRONG, Variant, variants
from router.policies.registry import POLICIES
from simulator.options import ReplayOptions
from simulator.run import run_policy
from simulator.summary import summarize
from simulator.traces.columns import Trace

BASE = {"model_error": 0.25}

Group = tuple[Scenario, int, tuple[Variant, ...]]
"""All that is run on the same arrivals."""


def replay(group: Group, out: Path) -> list[dict[str, Any]]:
    """Run one group, or take what is there from disk."""
    scenario, seed, variants = group
    results, trace, rate_scale = [], None, 1.0
    for variant in variants:
        kept = out / f"{variant.key(scenario, seed)}.json"
        if not kept.exists():
            if trace is None:
                plain = config_of(scenario.fleet, "least-request")
                trace, rate_scale = trace_of(scenario, plain, seed)
            kept.write_text(json.dumps(_facts(variant, scenario, seed, trace, rate_scale)))
        told = {"scenario": scenario.label, "load": scenario.load, "name": variant.name}
        results.append({**json.loads(kept.read_text()), **told})
    return results


def _facts(
    variant: Variant, scenario: Scenario, seed: int, trace: Trace, rate_scale: float
) -> dict[str, Any]:
    from simulator.batch import make_planner  # noqa: PLC0415 - loads the solver

    params = dict(variant.params)
    if variant.name == ALONE:
        return _alone_facts(scenario, seed, trace)
    config = config_of(scenario.fleet, variant.policy, params, classes=variant.classes)
    options = ReplayOptions(seed=seed, **{**BASE, **dict(variant.options)})
    run = summarize(
        run_policy(
            trace,
            config,
            variant.policy,
            options,
            rate_scale=rate_scale,
            make_planner=make_planner,
        )
    )
    classes = run["classes"]
    judged = classes[JUDGED] if scenario.workload == SLO_MIX else run
    return {
        "scenario": scenario.label,
        "workload": scenario.workload,
        "fleet": scenario.fleet,
        "load": scenario.load,
        "seed": seed,
        "p99_s": [judged["ttft_s"]["p99"], judged["e2e_s"]["p99"]],
        "attainment": run["slo_attainment"],
        "goodput_per_s": run["goodput_per_s"],
        "cached_token_ratio": run["cached_token_ratio"],
        "classes": {
            name: {
                "attainment": facts["slo_attainment"],
                "turned_away": facts["rejected"] / facts["arrived"],
                "p99_s": [facts["ttft_s"]["p99"], facts["e2e_s"]["p99"]],
            }
            for name, facts in classes.items()
        },
    }


def _alone_facts(scenario: Scenario, seed: int, trace: Trace) -> dict[str, Any]:
    ttft, e2e = alone(config_of(scenario.fleet, "motley"), trace)
    judged = np.ones(len(trace), dtype=np.bool_)
    if scenario.workload == SLO_MIX:
        judged = np.array([trace.slo_class[i] == JUDGED for i in range(len(trace))])
    p99_s = [float(np.percentile(column[judged], 99)) for column in (ttft, e2e)]
    return {
        "scenario": scenario.label,
        "workload": scenario.workload,
        "fleet": scenario.fleet,
        "load": scenario.load,
        "seed": seed,
        "p99_s": p99_s,
        "attainment": 1.0,
        "classes": {},
    }


def groups(options: argparse.Namespace) -> list[Group]:
    asked = (
        held_out_scenarios(options.requests)
        if options.held_out
        else scenarios(options.workloads, options.fleets, options.requests)
    )
    return [
        (scenario, seed, variants(options, scenario.workload))
        for seed in range(options.first_seed, options.first_seed + options.seeds)
        for scenario in asked
        if scenario.load in options.loads or options.held_out
    ]


def run_all(wanted: list[Group], out: Path, workers: int) -> list[dict[str, Any]]:
    out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers) as pool:
        results = pool.map(partial(replay, out=out), wanted)
        console = Console(stderr=True)
        tracked = track(results, "replaying", total=len(wanted), console=console)
        return [result for group in tracked for result in group]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), choices=list(POLICIES))
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=WORKLOADS)
    parser.add_argument("--fleets", nargs="+", default=[*MIXED, LARGE], choices=FLEETS)
    parser.add_argument("--loads", nargs="+", type=float, default=list(LOADS), choices=LOADS)
    parser.add_argument("--requests", type=int, default=1000, help="a scenario")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--first-seed", type=int, default=0, help="other draws than the published ones"
    )
    parser.add_argument(
        "--held-out", action="store_true", help="the scenarios that nothing was tuned on"
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument(
        "--variants",
        nargs="+",
        default=list(ABLATIONS),
        choices=ABLATIONS,
        type=lambda name: name.replace("_", " "),
        help="of the ablation; _ for a blank",
    )
    parser.add_argument("--by-workload", action="store_true", help="an ablation table for each")
    parser.add_argument("--headroom", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("out/bench-policies"))
    parser.add_argument("--html", type=Path, help="also write a page of plots")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.requests, options.policies = 1, 500, list(STRONG)
    return options


def told(options: argparse.Namespace, results: list[dict[str, Any]]) -> str:
    """The table that was asked for."""
    if options.headroom:
        return headroom_table(results)
    if options.ablation and options.by_workload:
        return workload_ablation(results)
    if options.ablation:
        return ablation_table(results)
    return summary_table(results) if options.held_out else evidence_tables(results)


def main() -> None:
    options = arguments()
    results = run_all(groups(options), options.out, options.workers)
    print(told(options, results))
    if options.html:
        from benchmarks.policies.page import write_page  # noqa: PLC0415 - loads matplotlib

        write_page(results, options.html)


if __name__ == "__main__":
    main()
