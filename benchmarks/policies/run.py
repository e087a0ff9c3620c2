"""Replay every scenario with every policy and say who wins, loses, and by how much.

::

    python -m benchmarks.policies.run                    everything (about 25 CPU-minutes)
    python -m benchmarks.policies.run --quick            one seed, fewer requests
    python -m benchmarks.policies.run --held-out         scenarios that nothing was tuned on
    python -m benchmarks.policies.run --ablation         Motley without each of its parts

Finished cells are kept in ``--out`` and not run again while the code is the same. Every policy sees
the same arrivals and lengths, a belief 25 % wrong, scrapes 1 s old (or as often as that router
polls), predicted lengths. The peers are given every advantage: their weights are the believed
speeds of the hardware, corrected by the same feedback. Figures are means over seeds of P99 TTFT and
P99 E2E.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from benchmarks.policies.scenarios import (
    FLEETS,
    WORKLOADS,
    Scenario,
    config_of,
    held_out_scenarios,
    scenarios,
    trace_of,
)
from benchmarks.policies.tables import ablation_table, summary_table
from router.policies.registry import POLICIES
from simulator.options import ReplayOptions
from simulator.run import run_policy
from simulator.summary import summarize
from simulator.sweep.cell import code_digest

BASE = {"model_error": 0.25}
SKIPPED = {"random", "round-robin", "aibrix-least-latency"}
"""Unstable on every mixed fleet: their queues grow without bound and only burn CPU."""

ABLATIONS: dict[str, tuple[dict[str, float], dict[str, Any]]] = {
    "motley": ({}, {}),
    "minus externality": ({"externality": 0.0}, {}),
    "minus TTFT term": ({"ttft_weight": 0.0}, {}),
    "minus late binding": ({"backlog_s": 1e9}, {}),
    "minus waiting for one": ({"hold_margin": 1e12}, {}),
    "minus prefix credit": ({"prefix_weight": 0.0}, {}),
    "minus tail-awareness": ({"tail_weight": 0.0, "overshoot_weight": 0.0}, {}),
    "minus overshoot alone": ({"overshoot_weight": 0.0}, {}),
    "minus feedback": ({}, {"feedback": False}),
    "plus plan prices": ({}, {"plan": True}),
    "oracle lengths": ({}, {"length_predictor": "oracle"}),
    "oracle (bound)": ({}, {"oracle": True}),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One replay."""

    name: str
    policy: str
    params: dict[str, float]
    options: dict[str, Any]
    scenario: Scenario
    seed: int

    @property
    def key(self) -> str:
        facts = repr((self.policy, sorted(self.params.items()), sorted(self.options.items())))
        return sha256(f"{facts}{self.scenario}{self.seed}{code_digest()}".encode()).hexdigest()[:20]


def replay(cell: Cell, out: Path) -> dict[str, Any]:
    """Run one cell, or take it from disk."""
    kept = out / f"{cell.key}.json"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    config = config_of(cell.scenario.fleet, cell.policy, cell.params)
    trace, rate_scale = trace_of(cell.scenario, config, cell.seed)
    options = ReplayOptions(seed=cell.seed, **{**BASE, **cell.options})
    from simulator.batch import make_planner  # noqa: PLC0415 - loads the solver

    run = run_policy(
        trace, config, cell.policy, options, rate_scale=rate_scale, make_planner=make_planner
    )
    result = {
        "name": cell.name,
        "scenario": cell.scenario.label,
        "workload": cell.scenario.workload,
        "seed": cell.seed,
        **summarize(run),
    }
    kept.write_text(json.dumps(result))
    return result


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    asked = (
        held_out_scenarios(options.requests)
        if options.held_out
        else scenarios(options.workloads, options.fleets, options.requests)
    )
    for scenario in asked:
        for seed in range(options.seeds):
            if options.ablation:
                for name, (params, changed) in ABLATIONS.items():
                    yield Cell(name, "motley", params, changed, scenario, seed)
            else:
                for name in options.policies:
                    yield Cell(name, name, {}, {}, scenario, seed)


def run_all(wanted: list[Cell], out: Path, workers: int) -> list[dict[str, Any]]:
    out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers) as pool:
        results: Iterable[dict[str, Any]] = pool.map(partial(replay, out=out), wanted, chunksize=2)
        console = Console(stderr=True)
        return list(track(results, "replaying", total=len(wanted), console=console))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    stable = [name for name in POLICIES if name not in SKIPPED]
    parser.add_argument("--policies", nargs="+", default=stable, choices=list(POLICIES))
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=WORKLOADS)
    parser.add_argument("--fleets", nargs="+", default=list(FLEETS)[:3], choices=FLEETS)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--held-out", action="store_true", help="the scenarios that nothing was tuned on"
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("out/bench-policies"))
    parser.add_argument("--html", type=Path, help="also write a page of plots")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.requests = 1, min(options.requests, 2000)
    return options


def main() -> None:
    options = arguments()
    results = run_all(list(cells(options)), options.out, options.workers)
    print(ablation_table(results) if options.ablation else summary_table(results))
    if options.html:
        from benchmarks.policies.page import write_page  # noqa: PLC0415 - loads matplotlib

        write_page(results, options.html)


if __name__ == "__main__":
    main()
