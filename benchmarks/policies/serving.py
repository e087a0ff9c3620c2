"""Service classes under overload, hedging and model fallback: when each pays, and when not.

::

    python -m benchmarks.policies.serving              three tables (about 1 CPU-minute)

Classes: Azure conversations of three tenants (3 : 1 : 1), of which one in five is interactive (TTFT
2 s, TPOT 0.1 s), one in five throughput (10 s, 0.25 s) and three in five bulk, at 0.9, 1.2 and 3
times the fleet's fluid capacity. Goodput counts the classes that have targets. Hedging: the same
trace with and without, in health and with an engine that hangs for 8 s every 40 s. Fallback: a 70B
model whose clients allow an 8B one. Beliefs are 25 % wrong throughout.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.policies.scenarios import FLEETS, MODEL, Scenario, trace_of
from router.config.load import MotleyConfig, load_config
from simulator.faults import Fault
from simulator.options import ReplayOptions
from simulator.run import run_policy
from simulator.summary import Summary, summarize
from simulator.traces.columns import Trace
from simulator.traces.record import TraceRecord
from simulator.traces.transform import assign

MIX = (("interactive", 1.0), ("throughput", 1.0), ("bulk", 3.0))
TENANTS = {"red": 3.0, "green": 1.0, "blue": 1.0}
OPTIONS = ReplayOptions(model_error=0.25)
BIG = "llama-3.1-70b"
PATIENT = {"queue_timeout_s": 86_400, "queue_size": 1_000_000}


def fleet(name: str, **sections: Any) -> MotleyConfig:
    entries = [
        {"gpu": gpu, "count": count, "engine": engine, "tensor_parallel": cards, "model": MODEL}
        for gpu, count, engine, cards in FLEETS[name]
    ]
    return load_config({"backends": entries, **sections})


def classes(seed: int) -> Iterator[str]:
    """Interactive attainment and QoE, bulk's fate, goodput of those with targets."""
    yield "| load | policy | admission | interactive in SLO | QoE | throughput in SLO |"
    yield " bulk served | longest bulk wait | goodput /s |\n"
    yield "|---|---|---|---|---|---|---|---|---|\n"
    for load in (0.9, 1.2, 3.0):
        for admission in (False, True):
            for policy in ("least-request", "motley"):
                sections = {"admission": {"enabled": True}} if admission else {}
                patience = {} if admission else {"reliability": PATIENT}
                config = fleet("balanced", **sections, **patience)
                scenario = Scenario("azure-conv", "balanced", load, int(2_000 * load))
                plain, _ = trace_of(scenario, config, seed)
                draw = np.random.default_rng(seed)
                trace = assign(assign(plain, "slo_class", dict(MIX), draw), "tenant", TENANTS, draw)
                options = replace(OPTIONS, seed=seed)
                run = summarize(run_policy(trace, config, policy, options))
                yield class_row(load, policy, admission, run)


def class_row(load: float, policy: str, admission: bool, run: Summary) -> str:
    chat, batch, bulk = (run["classes"][name] for name, _ in MIX)
    goodput = chat["goodput_per_s"] + batch["goodput_per_s"]
    return (
        f"| {load:g} | `{policy}` | {'on' if admission else 'off'} "
        f"| {100 * chat['slo_attainment']:.1f}% | {chat['qoe_mean']:.3f} "
        f"| {100 * batch['slo_attainment']:.1f}% "
        f"| {100 * bulk['completed'] / bulk['arrived']:.0f}% "
        f"| {bulk['waited_s']['max']:.0f} s | {goodput:.2f} |\n"
    )


def hedging(seed: int) -> Iterator[str]:
    """TTFT with and without a second attempt."""
    yield "| engines | load | policy | hedging | TTFT P99 | TTFT worst | note |\n"
    yield "|---|---|---|---|---|---|---|\n"
    for ill in (False, True):
        for load in (0.3, 0.75):
            for policy in ("least-request", "motley"):
                for on in (False, True):
                    config = fleet("balanced", hedging={"enabled": on}, reliability=PATIENT)
                    scenario = Scenario("azure-conv", "balanced", load, 3_000)
                    trace, _ = trace_of(scenario, config, seed)
                    stalls = [
                        Fault(40.0 * k, f"v100-32-{k % 2}", "hang", for_s=8.0)
                        for k in range(1, int(trace.span_s / 40.0))
                    ]
                    run = summarize(
                        run_policy(
                            trace,
                            config,
                            policy,
                            replace(OPTIONS, seed=seed),
                            faults=stalls if ill else (),
                        )
                    )
                    notes = [n for n in run["notes"] if n.startswith("hedging")]
                    note = notes[0].removeprefix("hedging: ") if notes else ""
                    ttft = run["ttft_s"]
                    yield (
                        f"| {'stalling' if ill else 'well'} | {load:g} | `{policy}` "
                        f"| {'on' if on else 'off'} | {ttft['p99']:.2f} | {ttft['max']:.2f} "
                        f"| {note} |\n"
                    )


def fallback(seed: int) -> Iterator[str]:
    """A 70B model under overload, with an 8B one beside it."""
    yield "| requests /s | fallback | in SLO | E2E P99 | note |\n|---|---|---|---|---|\n"
    config = load_config(
        {
            "backends": [
                {"gpu": "a100-80", "tensor_parallel": 4, "model": BIG},
                {"gpu": "a100-80", "model": MODEL},
            ],
            "fallbacks": {BIG: [MODEL]},
            "slos": {"interactive": {"ttft_s": 2.0, "tpot_s": 0.2}},
            "reliability": PATIENT,
        }
    )
    for rate in (1.0, 4.0, 8.0, 14.0):
        for on in (False, True):
            options = replace(OPTIONS, seed=seed, fallback=on)
            run = summarize(run_policy(conversation(rate, seed), config, "motley", options))
            note = "; ".join(n for n in run["notes"] if "answered by" in n)
            yield (
                f"| {rate:g} | {'on' if on else 'off'} | {100 * run['slo_attainment']:.1f}% "
                f"| {run['e2e_s']['p99']:.1f} | {note} |\n"
            )


def conversation(rate_per_s: float, seed: int) -> Trace:
    draw, rows, now = random.Random(seed), [], 0.0
    while now < 200.0:
        now += draw.expovariate(rate_per_s)
        prompt, output = int(draw.lognormvariate(6.6, 0.6)) + 1, int(draw.lognormvariate(5, 0.5))
        rows.append(TraceRecord(now, prompt, output + 1, model=BIG))
    return Trace("big").extend(rows)


TABLES: Mapping[str, Any] = {"classes": classes, "hedging": hedging, "fallback": fallback}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("table", nargs="*", choices=[*TABLES, []], help="all by default")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name in arguments.table or TABLES:
        print("".join(TABLES[name](arguments.seed)))


if __name__ == "__main__":
    main()
