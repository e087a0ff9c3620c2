"""When a fallback model pays: under overload, and only there."""

from __future__ import annotations

import random
from operator import sub
from statistics import fmean

from router.config.load import load_config
from simulator.options import ReplayOptions
from simulator.run import run_policy
from simulator.summary import summarize
from simulator.traces.columns import Trace
from simulator.traces.record import TraceRecord

BIG, SMALL = "llama-3.1-70b", "llama-3.1-8b"
CONFIG = load_config(
    {
        "backends": [
            {"gpu": "a100-80", "tensor_parallel": 4, "model": BIG},
            {"gpu": "a100-80", "model": SMALL},
        ],
        "fallbacks": {BIG: [SMALL]},
        "slos": {"interactive": {"ttft_s": 2.0, "tpot_s": 0.2}},
        "reliability": {"queue_timeout_s": 86_400},
    }
)


def run(rate_per_s: float, fallback: bool, seed: int = 2) -> dict[str, object]:
    draw, rows, now = random.Random(seed), [], 0.0
    while now < 100.0:
        now += draw.expovariate(rate_per_s)
        rows.append(TraceRecord(now, 1_000, 150, model=BIG))
    trace = Trace("big").extend(rows)
    return summarize(run_policy(trace, CONFIG, "motley", ReplayOptions(fallback=fallback)))


def test_it_pays_under_overload():
    """At about what the big model can just not bear, over three arrivals."""
    kept: dict[bool, list[float]] = {False: [], True: []}
    for seed in (2, 3, 4):
        for allowed, attained in kept.items():
            told = run(14.0, allowed, seed)
            attained.append(told["slo_attainment"])  # type: ignore[arg-type]
        (note,) = told["notes"]  # type: ignore[misc]
        assert f"for {BIG} were answered by {SMALL}" in note
    assert fmean(kept[True]) > fmean(kept[False]) + 0.6
    assert min(map(sub, kept[True], kept[False])) > 0.5


def test_and_costs_nothing_at_low_load():
    assert run(0.5, True)["notes"] == []
