"""Long prompts, one fast card, many slow ones: the longest wait for the fast card, together.

They must not go to a slow card at once because somebody else waits for the fast one already, or
because it has no KV for them this very second. Beside it a router that packs: it keeps the fast
card for the longest prompts by sending all else to the slow ones, and pays with E2E.
"""

from __future__ import annotations

import math
import random
from functools import cache
from statistics import geometric_mean

from router.config.load import load_config
from simulator.options import ReplayOptions
from simulator.run import run_policy
from simulator.summary import summarize
from simulator.traces.columns import Trace
from simulator.traces.record import TraceRecord

MODEL = "llama-3.1-8b"
FLEET = [
    {"gpu": "a100-40", "engine": "vllm", "model": MODEL},
    {"gpu": "v100-32", "engine": "vllm", "model": MODEL},
    {"gpu": "t4", "count": 5, "engine": "vllm", "tensor_parallel": 2, "model": MODEL},
]
SEEDS = (1, 2, 3)


def chats_and_documents(seed: int) -> Trace:
    """Every 5 s a request: about as many documents of 15,000 to 70,000 tokens as chats."""
    draw, trace, at = random.Random(seed), Trace("long"), 0.0
    for _ in range(300):
        at += draw.expovariate(0.2)
        if draw.random() < 0.45:
            prompt = int(min(15_000 * math.exp(0.55 * abs(draw.gauss(0, 1))), 70_000))
            trace.append(TraceRecord(at, prompt, draw.randint(2, 30)))
        else:
            trace.append(TraceRecord(at, draw.randint(20, 4_000), draw.randint(50, 500)))
    return trace


@cache
def p99(policy: str, seed: int) -> tuple[float, float]:
    """P99 of TTFT and of E2E."""
    config = load_config({"backends": FLEET, "reliability": {"queue_timeout_s": 10_000}})
    told = summarize(
        run_policy(chats_and_documents(seed), config, policy, ReplayOptions(seed=seed))
    )
    assert told["completed"] == told["arrived"]
    return told["ttft_s"]["p99"], told["e2e_s"]["p99"]


def over(rival: str, which: int) -> float:
    """Motley's P99 over another's, on the same arrivals."""
    return geometric_mean(p99("motley", seed)[which] / p99(rival, seed)[which] for seed in SEEDS)


def test_the_longest_prompts_are_served_as_soon_as_by_a_router_that_packs_for_them():
    assert over("goodserve-just-enough", 0) < 1.03


def test_and_their_answers_sooner():
    assert over("goodserve-just-enough", 1) < 0.95
