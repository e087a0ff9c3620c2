"""Prompts on one card, answers on another: when it pays on a mixed fleet, and when it loses.

::

    python -m benchmarks.policies.disaggregation          the docs' table (10 CPU-seconds)
    python -m benchmarks.policies.disaggregation --all    half of that load, and a slow link (30)

``off``: every request is served whole. ``on``: every backend may do either, and a request is split
where that is predicted to be better. ``10 Gbit/s``: the same over a slow link. ``dedicated``: the
first kind of card only computes prompts, the other (of four equal ones, the other half) only gives
answers, which is what SGLang asks for. Loads are shares of the fleet's fluid capacity when nothing
is split. Beliefs are 25 % wrong throughout; policy ``motley``.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from benchmarks.policies.scenarios import MODEL, capacity_per_s
from benchmarks.policies.serving import OPTIONS, PATIENT
from router.config.load import MotleyConfig, load_config
from simulator.run import run_policy
from simulator.summary import Summary, summarize
from simulator.traces.columns import Trace
from simulator.traces.record import TraceRecord

PAIRED: Mapping[str, tuple[tuple[str, int, dict[str, Any]], ...]] = {
    "2 H100, 2 A100": (("h100", 2, {}), ("a100-80", 2, {})),
    "2 L40S, 2 V100 (vLLM 0.18)": (
        ("l40s", 2, {"engine_version": "0.18.1"}),
        ("v100-32", 2, {"engine_version": "0.18.1"}),
    ),
    "3 A10G, 2 A100": (("a10g", 3, {}), ("a100-80", 2, {})),
    "4 A100": (("a100-80", 4, {}),),
}
"""Compute-rich first where there is a difference."""
SHAPES: Mapping[str, tuple[float, float]] = {
    "long prompts": (4_000.0, 200.0),
    "chat": (1_000.0, 400.0),
}
"""Median prompt and answer, in tokens, log-normal."""
COMPARED = ("off", "on", "dedicated")
MODES: Mapping[str, dict[str, Any]] = {
    "off": {"enabled": False},
    "on": {"enabled": True},
    "on, 10 Gbit/s": {"enabled": True, "link_gb_per_s": 1.25},
    "dedicated": {"enabled": True},
}


def table(seed: int) -> Iterator[str]:
    """One row per fleet and workload at a load of 0.8."""
    yield "| fleet, load 0.8 | workload | TTFT P99 | E2E mean | E2E P99 | split |\n"
    yield "|---|---|---|---|---|--:|\n"
    for name in PAIRED:
        for shape in SHAPES:
            off, on, dedicated = (run(name, shape, 0.8, mode, seed) for mode in COMPARED)
            cells = (
                " / ".join(shown(each[what][which]) for each in (off, on, dedicated))
                for what, which in (("ttft_s", "p99"), ("e2e_s", "mean"), ("e2e_s", "p99"))
            )
            yield f"| {name} | {shape} | {' | '.join(cells)} | {split(on):.0%} |\n"


def everything(seed: int) -> Iterator[str]:
    """Both loads, every mode."""
    yield "| fleet | workload | load | mode | split | TTFT P99 | TPOT P99 | E2E mean | E2E P99 |\n"
    yield "|---|---|--:|---|--:|--:|--:|--:|--:|\n"
    for name in PAIRED:
        for shape in SHAPES:
            for load in (0.4, 0.8):
                for mode in MODES:
                    told = run(name, shape, load, mode, seed)
                    yield (
                        f"| {name} | {shape} | {load:g} | {mode} | {split(told):.0%} "
                        f"| {told['ttft_s']['p99']:.2f} | {told['tpot_s']['p99']:.3f} "
                        f"| {told['e2e_s']['mean']:.2f} | {told['e2e_s']['p99']:.1f} |\n"
                    )


def run(name: str, shape: str, load: float, mode: str, seed: int) -> Summary:
    probe = drawn(*SHAPES[shape], 1.0, seed)
    rate_per_s = load * capacity_per_s(paired(name, "off"), probe)
    trace = drawn(*SHAPES[shape], rate_per_s, seed)
    options = replace(OPTIONS, seed=seed)
    return summarize(run_policy(trace, paired(name, mode), "motley", options))


def shown(value: float) -> str:
    return f"{value:.0f}" if value >= 100.0 else f"{value:.3g}"


def split(told: Summary) -> float:
    """Share of the requests that two backends served."""
    notes = [n.split() for n in told["notes"] if n.startswith("disaggregation: ")]
    return int(notes[0][1]) / told["arrived"] if notes else 0.0


def paired(name: str, mode: str) -> MotleyConfig:
    kinds = PAIRED[name]
    entries: list[dict[str, Any]] = []
    for position, (gpu, count, more) in enumerate(kinds):
        entry = {"gpu": gpu, "model": MODEL, **more}
        if mode != "dedicated":
            entries.append(entry | {"count": count})
            continue
        prefills = count // 2 if len(kinds) == 1 else count * (position == 0)
        for role, some in (("prefill", prefills), ("decode", count - prefills)):
            if some:
                named = {"count": some, "role": role, "name": f"{gpu}-{role}"}
                entries.append(entry | named)
    sections = {"disaggregation": MODES[mode], "reliability": PATIENT}
    return load_config({"backends": entries, **sections})


def drawn(prompt: float, output: float, rate_per_s: float, seed: int) -> Trace:
    draw, rows, now = random.Random(seed), [], 0.0
    for _ in range(2_000):
        now += draw.expovariate(rate_per_s)
        asked = min(int(draw.lognormvariate(math.log(prompt), 0.6)) + 1, 16_000)
        rows.append(TraceRecord(now, asked, int(draw.lognormvariate(math.log(output), 0.6)) + 2))
    return Trace("drawn").extend(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--all", action="store_true", help="both loads, and a slow link")
    asked = parser.parse_args()
    print("".join((everything if asked.all else table)(asked.seed)))


if __name__ == "__main__":
    main()
