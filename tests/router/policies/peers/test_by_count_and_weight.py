"""Rivals that weigh counts: LiteLLM, nginx, SMG, AIBrix least-latency and slo-least-load."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from router.domain.protocols import LossListener, Observer, Policy
from router.domain.state import EngineSignals
from tests.fakes import FAST, SLOW, ask, outcome, spec, view, views
from tests.router.policies.picking import picked, policy_of, scores

# A typical request takes 0.465 s on a fast backend and 2.075 s on a slow one
# (test_simple_policies.py).
FAST_TYPICAL_S, SLOW_TYPICAL_S = 0.465, 2.075


def told(policy: Policy) -> Observer:
    """The policy, as one that learns."""
    assert isinstance(policy, Observer)
    return policy


def lose(policy: Policy, backend: str) -> None:
    """Tell a policy that keeps books by backend that one is gone."""
    assert isinstance(policy, LossListener)
    policy.lost(backend)


def test_weighted_random_draws_by_speed():
    policy, fleet = policy_of("weighted-random"), views(fast={}, slow={"cost": SLOW})
    chosen = Counter(picked(policy, fleet) for _ in range(1_000))
    share = SLOW_TYPICAL_S / (FAST_TYPICAL_S + SLOW_TYPICAL_S)  # 0.817
    # Standard deviation 0.012; four of them either way.
    assert chosen["fast"] / 1_000 == pytest.approx(share, abs=0.05)


class TestNginxLeastConn:
    @pytest.mark.parametrize(
        ("in_flight", "chosen"),
        [(4, "fast"), (5, "slow")],  # 4 * 0.465 = 1.86 and 5 * 0.465 = 2.33 against 1 * 2.075
    )
    def test_compares_connections_per_weight(self, in_flight: int, chosen: str):
        fleet = views(fast={"in_flight": in_flight}, slow={"cost": SLOW, "in_flight": 1})
        values = {"fast": in_flight * FAST_TYPICAL_S, "slow": 1 * SLOW_TYPICAL_S}
        assert scores(values) == chosen
        assert picked(policy_of("nginx-least-conn"), fleet) == chosen

    def test_ties_go_round_in_proportion_to_the_weights(self):
        policy, fleet = policy_of("nginx-least-conn"), views(fast={}, slow={"cost": SLOW})
        # Weights 4.46 and 1: the turns of "fast" before each choice are 4.46, 3.46, 2.46 (and the
        # other's 3: its turn), 6.92, 5.92, 4.92, 3.92, 2.92 (against 2.54), 1.92 (against 3.54).
        assert "".join(picked(policy, fleet)[0] for _ in range(9)) == "ffsfffffs"

    def test_a_lost_backends_turn_is_forgotten(self):
        policy, fleet = policy_of("nginx-least-conn"), views(a={}, b={})
        assert picked(policy, fleet) == "a"  # b's turn is next
        lose(policy, "b")
        lose(policy, "a")
        assert picked(policy, fleet) == "a"

    def test_equals_take_turns(self):
        policy, fleet = policy_of("nginx-least-conn"), views(a={}, b={}, c={})
        rounds = [{picked(policy, fleet) for _ in range(3)} for _ in range(4)]
        assert rounds == [{"a", "b", "c"}] * 4


class TestSmgLeastLoad:
    """(waiting * 1,024 + sent since the poll) / rate + 0.15 * usage / (1 - usage)."""

    def fleet(self, observed_s: float = 0.0) -> list[Any]:
        return views(
            a={
                "signals": EngineSignals(
                    observed_s, waiting=2, kv_usage=0.5, gen_tokens_per_s=1_000.0
                )
            },
            b={"signals": EngineSignals(observed_s, waiting=3, kv_usage=0.9)},
        )

    def test_drain_time_plus_kv_pressure(self):
        a = 2 * 1_024 / 1_000 + 0.15 * 0.5 / 0.5
        b = 3 * 1_024 / 2_000 + 0.15 * 0.9 / 0.1  # vLLM tells no rate: 2,000 tokens/s
        assert scores({"a": a, "b": b}) == "a"
        assert picked(policy_of("smg-least-load"), self.fleet()) == "a"

    def test_counts_what_it_sent_until_the_next_poll(self):
        policy = policy_of("smg-least-load")
        chosen = [picked(policy, self.fleet()) for _ in range(3)]
        # a: 2.20, then 3.20 with 1,000 tokens sent; b: 2.89, then 3.39.
        assert chosen == ["a", "b", "a"]
        assert picked(policy, self.fleet(observed_s=10.0)) == "a", "a new poll: 2.20 again"

    def test_what_was_sent_to_a_lost_backend_is_gone(self):
        policy = policy_of("smg-least-load")
        assert picked(policy, self.fleet()) == "a"  # 3.20 from now on, against 2.89
        lose(policy, "a")
        assert picked(policy, self.fleet()) == "a"

    def test_a_full_cache_is_bad_and_not_infinitely_so(self):
        full = views(
            a={"signals": EngineSignals(0.0, waiting=0, kv_usage=1.0)},
            b={"signals": EngineSignals(0.0, waiting=400, kv_usage=0.0)},
        )
        # 0.15 * 0.999 / 0.001 = 149.9 s against 400 * 1,024 / 2,000 = 204.8 s
        assert picked(policy_of("smg-least-load"), full) == "a"

    @pytest.mark.parametrize(("in_flight", "chosen"), [(3, "c"), (4, "a")])
    def test_one_without_a_poll_is_taken_to_be_as_fast_as_the_others(
        self, in_flight: int, chosen: str
    ):
        # a: 2.20; c: in flight * 1,024 / 1,500, the mean of 1,000 and 2,000: 2.05 and 2.73.
        fleet = [*self.fleet(), view("c", 2, in_flight=in_flight)]
        assert scores({"a": 2.198, "b": 2.886, "c": in_flight * 1_024 / 1_500}) == chosen
        assert picked(policy_of("smg-least-load"), fleet) == chosen

    def test_without_a_poll_it_goes_by_count(self):
        fleet = views(a={"in_flight": 2}, b={"in_flight": 1})
        assert picked(policy_of("smg-least-load"), fleet) == "b"

    def test_its_flaw_an_idle_fast_card_and_a_slow_one_look_alike(self):
        idle = {"signals": EngineSignals(0.0, waiting=0, kv_usage=0.0)}
        fleet = views(fast=idle, slow={"cost": SLOW, **idle})
        first = {picked(policy_of("smg-least-load", seed), fleet) for seed in range(20)}
        assert first == {"fast", "slow"}


class TestMelangeStaticSplit:
    """Bucket of 1,000 in and 100 out: 768 and 96 tokens; at batch 16 an iteration holds 816 each.

    Fast: 0.0768 + 96 * (0.010 + 16 * 0.0002 + 16 * 816e-6) / 16 = 0.234 s; slow: 0.384 + 96 *
    (0.030 + 0.016 + 16 * 816 * 5e-6) / 16 = 1.052 s.
    """

    def test_before_a_plan_it_draws_by_the_buckets_throughput(self):
        policy, fleet = policy_of("melange-static-split"), self.fleet()
        chosen = Counter(picked(policy, fleet, ask(f"r{n}", forecast=100.0)) for n in range(499))
        assert chosen["fast"] / 499 == pytest.approx(1.052 / (0.234 + 1.052), abs=0.07)

    def test_then_it_draws_by_the_slices_that_level_the_load(self):
        # Even all four slices on the fast card (0.234) are done before one on the slow (0.263).
        policy, fleet = policy_of("melange-static-split"), self.fleet()
        for n in range(500):
            picked(policy, fleet, ask(f"r{n}", forecast=100.0))
        later = {picked(policy, fleet, ask(f"s{n}", forecast=100.0)) for n in range(100)}
        assert later == {"fast"}

    def test_blind_to_the_state_of_the_moment(self):
        policy, fleet = policy_of("melange-static-split"), self.fleet()
        fleet[0].in_flight = 200
        chosen = Counter(picked(policy, fleet, ask(f"r{n}", forecast=100.0)) for n in range(100))
        assert chosen["fast"] > 60

    def fleet(self) -> list[Any]:
        return [view("fast", 0), slow_group("slow", 1)]


def slow_group(name: str, index: int) -> Any:
    """A slow backend of its own kind."""
    backend = view(name, index, SLOW)
    backend.spec = spec(name, gpu="t4")
    return backend


class TestAibrixLeastLatency:
    def test_lifetime_means_scaled_to_the_fleets_average_request(self):
        policy = policy_of("aibrix-least-latency")
        observe = told(policy).observe
        # a: 1,000 tokens in 1 s, 100 tokens in 10 s; b: 500 in 1 s, 200 in 10 s.
        observe(outcome("a", prompt_tokens=1_000, output_tokens=100))
        observe(outcome("b", prompt_tokens=500, output_tokens=200))
        # The average request: 750 in, 150 out.
        a = 1.0 / 1_000 * 750 + 10.0 / 100 * 150
        b = 1.0 / 500 * 750 + 10.0 / 200 * 150
        assert (a, b) == (15.75, 9.0)
        assert picked(policy, views(a={}, b={})) == "b"

    def test_one_that_was_never_used_is_tried_first(self):
        policy = policy_of("aibrix-least-latency")
        told(policy).observe(outcome("a"))
        assert picked(policy, views(a={}, b={})) == "b"

    def test_one_that_was_lost_is_as_if_never_used(self):
        policy = policy_of("aibrix-least-latency")
        for name in ("a", "b"):
            told(policy).observe(outcome(name))
        lose(policy, "b")
        assert picked(policy, views(a={}, b={})) == "b"

    def test_only_complete_answers_count(self):
        policy = policy_of("aibrix-least-latency")
        told(policy).observe(outcome("a", "failed"))
        told(policy).observe(outcome("b"))
        assert picked(policy, views(a={}, b={})) == "a"


class TestAibrixSloLeastLoad:
    """Utilization: the sum over requests of 1 / (rate * latency) in the profile at batch 16."""

    # 1,000 in and 100 out: 1,050 tokens held; an iteration of 16.
    FAST_ITERATION_S = 0.010 + 16 * 0.0002 + 16 * 1_050 * 1e-6
    SLOW_ITERATION_S = 0.030 + 16 * 0.0010 + 16 * 1_050 * 5e-6
    FAST_SHARE = (0.1 + 100 * FAST_ITERATION_S / 16) / (0.1 + 100 * FAST_ITERATION_S)
    SLOW_SHARE = (0.5 + 100 * SLOW_ITERATION_S / 16) / (0.5 + 100 * SLOW_ITERATION_S)

    def test_takes_the_least_utilized_after_adding_the_request(self):
        policy, fleet = policy_of("aibrix-slo-least-load"), views(fast={}, slow={"cost": SLOW})
        assert pytest.approx(0.0927, abs=1e-4) == self.FAST_SHARE
        assert pytest.approx(0.0972, abs=1e-4) == self.SLOW_SHARE
        # 0.093 or 0.097; then 0.185 or 0.097; then 0.185 or 0.194; then 0.278 or 0.194.
        chosen = [picked(policy, fleet, ask(f"r{n}", forecast=100.0)) for n in range(4)]
        assert chosen == ["fast", "slow", "fast", "slow"]

    @pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
    def test_gives_the_share_back_however_the_request_ended(self, status: Any):
        policy, fleet = policy_of("aibrix-slo-least-load"), views(fast={}, slow={"cost": SLOW})
        for n in range(10):
            name = picked(policy, fleet, ask(f"r{n}", forecast=100.0))
            assert name == "fast"
            told(policy).observe(outcome(name, status, request_id=f"r{n}"))

    def test_what_ran_on_a_lost_backend_weighs_no_more(self):
        policy, fleet = policy_of("aibrix-slo-least-load"), views(fast={}, slow={"cost": SLOW})
        assert picked(policy, fleet, ask("r0", forecast=100.0)) == "fast"
        lose(policy, "fast")
        assert picked(policy, fleet, ask("r1", forecast=100.0)) == "fast"
        lose(policy, "fast")
        told(policy).observe(outcome("fast", "failed", request_id="r0"))
        assert picked(policy, fleet, ask("r2", forecast=100.0)) == "fast"


def test_what_they_share_is_that_none_of_them_sees_the_request_itself():
    fleet = [view("fast", 0, FAST, in_flight=4), view("slow", 1, SLOW)]
    for name in ("nginx-least-conn", "weighted-least-request"):
        sizes = {picked(policy_of(name), fleet, ask(prompt_tokens=p)) for p in (1, 8_000)}
        assert sizes == {"slow"}
