"""When a fallback model pays: under overload, and only there."""

from __future__ import annotations

import random

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


def run(rate_per_s: float, fallback: bool) -> dict[str, object]:
    draw, rows, now = random.Random(2), [], 0.0
    while now < 100.0:
        now += draw.expovariate(rate_per_s)
        rows.append(TraceRecord(now, 1_000, 150, model=BIG))
    trace = Trace("big").extend(rows)
    return summarize(run_policy(trace, CONFIG, "motley", ReplayOptions(fallback=fallback)))


def test_it_pays_under_overload():
    without, allowed = run(14.0, False), run(14.0, True)
    assert without["slo_attainment"] < 0.7  # type: ignore[operator]
    assert allowed["slo_attainment"] > 0.95  # type: ignore[operator]
    (note,) = allowed["notes"]  # type: ignore[misc]
    assert f"for {BIG} were answered by {SMALL}" in note


def test_and_costs_nothing_at_low_load():
    assert run(0.5, True)["notes"] == []
