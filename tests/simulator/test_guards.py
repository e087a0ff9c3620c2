"""What Motley must not lose: a fleet of one kind, several routers that do not see one another."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from router.config.load import load_config
from simulator.options import ReplayOptions
from simulator.run import run_policy
from simulator.summary import summarize
from simulator.workload import TraceSpec, build_trace

MODEL = "llama-3.1-8b"
ALIKE: list[dict[str, Any]] = [{"gpu": "a100-40", "engine": "vllm", "count": 4}]
MIXED: list[dict[str, Any]] = [
    {"gpu": "a100-80", "engine": "sglang", "count": 2},
    {"gpu": "v100-32", "engine": "vllm", "count": 2},
    {"gpu": "t4", "engine": "vllm", "tensor_parallel": 2, "count": 3},
]


@cache
def p99(policy: str, mixed: bool, rate_scale: float, seed: int, routers: int = 1) -> list[float]:
    """P99 of TTFT and of E2E over about 1,500 requests."""
    kinds = MIXED if mixed else ALIKE
    config = load_config(
        {
            "backends": [kind | {"model": MODEL} for kind in kinds],
            "reliability": {"queue_timeout_s": 10_000},
        }
    )
    spec = TraceSpec("azure-conv-like", duration_s=270.0, rate_scale=rate_scale)
    trace, _ = build_trace(spec, seed)
    told = summarize(run_policy(trace, config, policy, ReplayOptions(seed=seed, routers=routers)))
    assert told["completed"] == told["arrived"]
    return [told["ttft_s"]["p99"], told["e2e_s"]["p99"]]


@pytest.mark.parametrize("rate_scale", [1.0, 2.5])
@pytest.mark.parametrize("seed", [1, 2])
def test_on_a_fleet_of_one_kind_it_is_no_worse_than_least_request(rate_scale: float, seed: int):
    """Here counting is all that is to be known, and whatever is added must not harm."""
    ours, theirs = (p99(name, False, rate_scale, seed) for name in ("motley", "least-request"))
    assert ours[0] <= 1.05 * theirs[0], "TTFT"
    assert ours[1] <= 1.05 * theirs[1], "E2E"


@pytest.mark.parametrize("rivals", ["least-request", "nginx-least-conn", "power-of-two"])
def test_several_routers_that_do_not_see_one_another_do_not_herd(rivals: str):
    """Each of four knows its own requests only: whoever looks free looks so to all of them."""
    ours, theirs = (p99(name, True, 2.0, 1, routers=4) for name in ("motley", rivals))
    assert ours[0] < 0.9 * theirs[0], "TTFT"
    assert ours[1] < 0.9 * theirs[1], "E2E"
