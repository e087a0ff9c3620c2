"""Rivals that predict: GoodServe, PolyServe, llm-d's predicted latency."""

from __future__ import annotations

import pytest

from router.domain.protocols import Observer
from router.domain.state import EngineSignals
from tests.fakes import FAST, SLOW, ask, outcome, view, views
from tests.router.policies.picking import picked, policy_of

# Targets of "interactive": TTFT 2 s, TPOT 0.1 s.


class TestGoodserveJustEnough:
    @pytest.mark.parametrize(
        ("prompt", "slow_ttft_s", "chosen"),
        [
            (1_000, 0.5 + (1_000 / 2_048 + 1) * 0.030, "slow"),
            (5_000, 2.5 + (5_000 / 2_048 + 1) * 0.030, "fast"),
        ],
    )
    def test_takes_the_weakest_that_keeps_the_targets(
        self, prompt: int, slow_ttft_s: float, chosen: str
    ):
        assert (slow_ttft_s <= 2.0) == (chosen == "slow")
        fleet = views(fast={}, slow={"cost": SLOW})
        request = ask(forecast=100.0, prompt_tokens=prompt)
        assert picked(policy_of("goodserve-just-enough"), fleet, request) == chosen

    def test_time_already_waited_counts(self):
        fleet = views(fast={}, slow={"cost": SLOW})
        request = ask(forecast=100.0)
        policy = policy_of("goodserve-just-enough")
        assert picked(policy, fleet, request, now=1.4) == "slow"  # 1.4 + 0.54 s
        assert picked(policy, fleet, request, now=1.5) == "fast"  # 1.5 + 0.54 and 1.5 + 0.11 s

    def test_when_nobody_can_the_lowest_predicted_latency(self):
        fleet = views(slow={"cost": SLOW}, fast={})
        request = ask(forecast=100.0, prompt_tokens=30_000)
        assert picked(policy_of("goodserve-just-enough"), fleet, request) == "fast"

    def test_a_class_without_targets_may_have_the_weakest(self):
        fleet = views(fast={}, slow={"cost": SLOW, "in_flight": 50, "context_tokens": 9e4})
        request = ask(forecast=100.0, slo_class="bulk")
        assert picked(policy_of("goodserve-just-enough"), fleet, request) == "slow"


class TestPolyservePacking:
    @pytest.mark.parametrize(
        ("context", "tpot_s", "chosen"),
        [
            (20_000.0, 0.010 + 11 * 0.0002 + 21_050 * 1e-6, "full"),
            (90_000.0, 0.010 + 11 * 0.0002 + 91_050 * 1e-6, "empty"),
        ],
    )
    def test_fills_the_fullest_that_keeps_the_targets(
        self, context: float, tpot_s: float, chosen: str
    ):
        assert (tpot_s <= 0.1) == (chosen == "full")
        fleet = views(
            empty={},
            full={"in_flight": 10, "decoding": 10, "context_tokens": context},
        )
        assert picked(policy_of("polyserve-packing"), fleet, ask(forecast=100.0)) == chosen


class TestLlmDPredictedLatency:
    def test_learns_that_a_queued_prompt_costs_time_to_first_token(self):
        policy = policy_of("llm-d-predicted-latency")
        assert isinstance(policy, Observer)
        for n in range(100):
            pending = 1_000 * (n % 6)
            state = view("a", pending_prefill_tokens=pending, prefilling=min(pending, 1))
            picked(policy, [state], ask(f"r{n}"))
            ttft_s = 0.1 + pending * 1e-3
            policy.observe(
                outcome(
                    "a",
                    request_id=f"r{n}",
                    first_token_s=ttft_s,
                    finished_s=ttft_s + 5.0,
                    output_tokens=101,
                )
            )
        fleet = views(
            a={"pending_prefill_tokens": 5_000, "prefilling": 1},
            b={"pending_prefill_tokens": 2_000, "prefilling": 1},
        )
        assert picked(policy, fleet) == "b"

    def test_its_flaw_no_feature_tells_the_gpu(self):
        signals = EngineSignals(0.0, running=0, waiting=0, kv_usage=0.0)
        fleet = [view("fast", 0, FAST, signals=signals), view("slow", 1, SLOW, signals=signals)]
        policy = policy_of("llm-d-predicted-latency")
        assert isinstance(policy, Observer)
        seen = set()
        for n in range(60):
            name = picked(policy, fleet, ask(f"r{n}"))
            seconds = 1.0 if name == "fast" else 30.0
            policy.observe(
                outcome(name, request_id=f"r{n}", first_token_s=seconds, finished_s=60.0)
            )
            seen.add((n >= 30, name))
        assert {(True, "fast"), (True, "slow")} <= seen, "thirty times burnt, and none the wiser"
