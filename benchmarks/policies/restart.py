"""What a restart costs, and what is left of that where the gateway keeps what it learned.

::

    python -m benchmarks.policies.restart                (about 8 CPU-minutes)
    python -m benchmarks.policies.restart --parts        what each part of it brings

Finished scenarios are kept in ``--out`` and not run again while the code is the same.
A gateway with ``motley`` serves one part of a workload and is stopped; one with the same wrong
belief about the same cards starts a minute later and serves another part, later in the trace and
without a request in common. It starts cold, with what the first one kept, or with what a gateway in
front of *other work* at the same load kept (``OTHER``): that may not do harm. All see the same
arrivals and lengths; P99s are over the whole second part, from its first request on, so they are of
a minute or two after the start. The peers, which learn nothing, are run on the same.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks.policies import tables
from benchmarks.policies.scenarios import (
    FLEETS,
    MIXED,
    SESSIONS,
    SLO_MIX,
    WORKLOADS,
    Scenario,
    at_load,
    config_of,
    two_windows,
)
from benchmarks.policies.slo_mix import JUDGED
from simulator.options import ReplayOptions
from simulator.run import build_replay, run_policy
from simulator.summary import summarize
from simulator.sweep.cell import code_digest
from simulator.traces.columns import Trace
from telemetry.learned import Learned

LOADS = (0.5, 0.75, 0.9)
OTHER = {
    "azure-conv": "azure-code",
    "azure-code": "azure-conv",
    "mooncake-prefix": "azure-code",
    SESSIONS: "azure-code",
    SLO_MIX: "azure-code",
}
COLD, KEPT, FOREIGN = "motley", "restarted", "restarted from other work"
PEERS = ("least-request", "nginx-least-conn", "lmetric", "aibrix-slo-least-load")
MODEL_ERROR = 0.25


def lessons(told: Learned, *, parts: bool) -> dict[str, Learned]:
    """What is kept, and each part of it by itself."""
    if not parts:
        return {KEPT: told}
    return {
        KEPT: told,
        "lengths alone": replace(told, speeds=[], policies={}),
        "all but the tails": replace(told, policies={}),
    }


class Cell:
    """One scenario and seed."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario, self.seed = scenario, seed
        self.options = ReplayOptions(seed=seed, model_error=MODEL_ERROR)
        self.config = config_of(scenario.fleet, "motley", classes=scenario.workload == SLO_MIX)
        earlier, later = two_windows(scenario.workload, scenario.requests, seed)
        self.earlier, self.later = self._at_load(earlier, scenario), self._at_load(later, scenario)

    def taught(self, trace: Trace) -> Learned:
        """What a gateway that served this knows at its end."""
        replay = build_replay(trace, self.config, "motley", self.options)
        replay.run()
        return replay.learned()

    def other_work(self) -> Trace:
        scenario = replace(self.scenario, workload=OTHER[self.scenario.workload])
        earlier, _ = two_windows(scenario.workload, scenario.requests, self.seed)
        return self._at_load(earlier, scenario)

    def served(self, name: str, policy: str, learned: Learned | None = None) -> dict[str, Any]:
        """The second part, as the tables want it."""
        config = self.config
        if policy != "motley":
            config = config_of(self.scenario.fleet, policy)
        run = summarize(run_policy(self.later, config, policy, self.options, learned=learned))
        judged = run["classes"][JUDGED] if self.scenario.workload == SLO_MIX else run
        return {
            "scenario": self.scenario.label,
            "workload": self.scenario.workload,
            "seed": self.seed,
            "name": name,
            "p99_s": [judged["ttft_s"]["p99"], judged["e2e_s"]["p99"]],
        }

    def _at_load(self, plain: Trace, scenario: Scenario) -> Trace:
        return at_load(plain, scenario, self.config, self.seed)[0]


def results(task: tuple[Scenario, int], *, parts: bool, out: Path) -> list[dict[str, Any]]:
    """Everything that is run on one scenario and seed, or what is there from disk."""
    mine = Path(__file__).read_bytes()
    key = sha256(f"{task}{parts}{code_digest()}".encode() + mine).hexdigest()[:20]
    kept = out / f"{key}.json"
    if not kept.exists():
        kept.write_text(json.dumps(_run(Cell(*task), parts=parts)))
    found: list[dict[str, Any]] = json.loads(kept.read_text())
    return found


def _run(cell: Cell, *, parts: bool) -> list[dict[str, Any]]:
    found = [cell.served(COLD, "motley")]
    for name, told in lessons(cell.taught(cell.earlier), parts=parts).items():
        found.append(cell.served(name, "motley", told))
    foreign = lessons(cell.taught(cell.other_work()), parts=parts)
    for name, told in foreign.items():
        found.append(cell.served(name.replace(KEPT, FOREIGN) + _mark(name), "motley", told))
    if not parts:
        found += [cell.served(peer, peer) for peer in PEERS]
    return found


def _mark(name: str) -> str:
    return "" if name == KEPT else ", of other work"


def table(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """By workload and over all: against a cold start, on the same arrivals."""
    names = [name for name in dict.fromkeys(r["name"] for r in found) if name not in PEERS]
    yield "| workload | start | P99 TTFT / cold | P99 E2E / cold |"
    yield "|---|---|--:|--:|"
    every = tables.runs_of(found)
    for workload in (*dict.fromkeys(r["workload"] for r in found), "all"):
        runs = tables.runs_of(r for r in found if workload in ("all", r["workload"]))
        for name in names[1:]:
            cells = [tables.told(tables.log_ratios(runs, name, COLD, k)) for k in (0, 1)]
            yield f"| {workload} | {name} | {' | '.join(cells)} |"
    yield ""
    seeds = {result["seed"] for result in found}
    yield (
        f"{len(every)} scenarios, {len(seeds)} seeds: geometric mean, its 95 % interval, and after "
        "the bar the worst scenario."
    )
    if any(result["name"] in PEERS for result in found):
        yield from against_peers(every)


def against_peers(runs: tables.Runs) -> Iterator[str]:
    """Against the best peer of every single scenario, picked after the fact."""
    for name in (COLD, KEPT, FOREIGN):
        means = []
        for which in (0, 1):
            ratios = tables.to_the_best(runs, name, which)
            means.append(math.exp(statistics.fmean(map(math.log, ratios))))
        told = "a cold start" if name == COLD else name
        yield (
            f"Of the best of {len(PEERS)} peers in each scenario, {told}: "
            f"P99 TTFT {means[0]:.2f}, P99 E2E {means[1]:.2f}."
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=WORKLOADS)
    parser.add_argument("--fleets", nargs="+", default=list(MIXED), choices=FLEETS)
    parser.add_argument("--loads", nargs="+", type=float, default=list(LOADS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--parts", action="store_true", help="each part of what is kept alone")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("out/bench-restart"))
    options = parser.parse_args()
    wanted = [
        (Scenario(workload, fleet, load, options.requests), seed)
        for seed in range(options.first_seed, options.first_seed + options.seeds)
        for workload in options.workloads
        for fleet in options.fleets
        for load in options.loads
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    run = partial(results, parts=options.parts, out=options.out)
    with ProcessPoolExecutor(options.workers) as pool:
        found = [result for some in pool.map(run, wanted) for result in some]
    for line in table(found):
        print(line)


if __name__ == "__main__":
    main()
