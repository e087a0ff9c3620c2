"""The policies that count, each from its formula, with the scores worked out beside it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from router.domain.state import EngineSignals
from router.policies.least_kv import kv_usage
from router.policies.weighted_least_request import typical_request_s
from tests.fakes import FAST, SLOW, ask, view, views
from tests.router.policies.picking import picked, policy_of, scores


def test_random_is_uniform_whatever_the_load():
    policy = policy_of("random")
    fleet = views(idle={}, busy={"in_flight": 99})
    chosen = Counter(picked(policy, fleet) for _ in range(400))
    assert 160 < chosen["busy"] < 240  # 200, with a standard deviation of 10


class TestRoundRobin:
    def test_goes_round(self):
        policy, fleet = policy_of("round-robin"), views(a={}, b={}, c={})
        assert "".join(picked(policy, fleet) for _ in range(7)) == "abcabca"

    def test_models_have_turns_of_their_own(self):
        policy, fleet = policy_of("round-robin"), views(a={}, b={})
        models = ("m", "n", "m", "n", "m")
        assert "".join(picked(policy, fleet, ask(model=m)) for m in models) == "aabba"

    def test_a_member_that_leaves_or_joins_skips_nobody_and_repeats_nobody(self):
        policy, (a, b, c) = policy_of("round-robin"), views(a={}, b={}, c={})
        d = view("d", index=3)
        rounds = [[a, b, c], [a, c], [a, c], [a, c, d], [a, c, d], [b, c, d], [b, c, d]]
        #          a          c       a       c          d          b          c
        assert "".join(picked(policy, fleet) for fleet in rounds) == "acacdbc"


def test_least_request_counts_what_is_in_flight():
    fleet = views(a={"in_flight": 2}, b={"in_flight": 1}, c={"in_flight": 3, "cost": FAST})
    assert picked(policy_of("least-request"), fleet) == "b"
    slow = views(a={"in_flight": 1}, b={"in_flight": 0, "cost": SLOW})
    assert picked(policy_of("least-request"), slow) == "b", "it is blind to speed"


def test_power_of_two_never_takes_the_worst_of_three_and_not_always_the_best():
    policy = policy_of("power-of-two")
    fleet = views(a={"in_flight": 1}, b={"in_flight": 2}, c={"in_flight": 0})
    chosen = Counter(picked(policy, fleet) for _ in range(300))
    assert chosen["b"] == 0
    # c is among two of three with probability 2/3: 200, with a standard deviation of 8.
    assert 165 < chosen["c"] < 235


class TestWeightedLeastRequest:
    def test_the_weight_is_the_time_of_a_typical_request(self):
        # 1,000 tokens of prefill, and 200 iterations of a batch of 16, shared by 16.
        fast = 0.1 + 200 * (0.010 + 16 * 0.0002 + 16_000 * 1e-6) / 16
        slow = 0.5 + 200 * (0.030 + 16 * 0.0010 + 16_000 * 5e-6) / 16
        assert typical_request_s(view(cost=FAST)) == pytest.approx(fast) == pytest.approx(0.465)
        assert typical_request_s(view(cost=SLOW)) == pytest.approx(slow) == pytest.approx(2.075)

    @pytest.mark.parametrize(
        ("in_flight", "score", "chosen"),
        [(0, 0.465, "fast"), (3, 1.860, "fast"), (4, 2.325, "slow")],
    )
    def test_the_slow_one_comes_when_the_fast_one_is_that_much_fuller(
        self, in_flight: int, score: float, chosen: str
    ):
        fleet = views(fast={"in_flight": in_flight}, slow={"cost": SLOW})
        assert scores({"fast": score, "slow": 2.075}) == chosen
        assert picked(policy_of("weighted-least-request"), fleet) == chosen


def scraped(**figures: Any) -> dict[str, Any]:
    return {"signals": EngineSignals(0.0, **figures)}


@pytest.mark.parametrize(
    ("a", "chosen"),
    [
        (scraped(kv_usage=0.4), "b"),
        (scraped(kv_usage=0.2), "a"),
        # Never scraped: expected from what was sent, 20,000 of 100,000 tokens.
        ({"context_tokens": 20_000.0}, "a"),
        # Scraped, and silent about its KV cache: unknown is not zero.
        ({"context_tokens": 50_000.0, **scraped(running=0)}, "b"),
        # Scraped as empty is known to be empty.
        ({"context_tokens": 50_000.0, **scraped(kv_usage=0.0)}, "a"),
    ],
)
def test_least_kv_goes_by_the_scrape_and_by_expectation_without_one(a: dict[str, Any], chosen: str):
    fleet = views(a=a, b=scraped(kv_usage=0.3))
    assert picked(policy_of("least-kv"), fleet) == chosen


@pytest.mark.parametrize(
    ("prompt", "a", "b", "chosen"),
    [
        (1_000, (0 + 1_000) * (3 + 1), (1_500 + 1_000) * (1 + 1), "a"),
        (4_000, (0 + 4_000) * (3 + 1), (1_500 + 4_000) * (1 + 1), "b"),
    ],
)
def test_lmetric_is_queued_prompt_tokens_times_batch(prompt: int, a: int, b: int, chosen: str):
    fleet = views(
        a={"in_flight": 3, "decoding": 3},
        b={"in_flight": 1, "prefilling": 1, "pending_prefill_tokens": 1_500},
    )
    assert scores({"a": a, "b": b}) == chosen
    assert picked(policy_of("lmetric"), fleet, ask(prompt_tokens=prompt)) == chosen


@pytest.mark.parametrize(
    ("batch", "fast", "chosen"),
    [
        # prefill 0.1 s, times an iteration of batch + 1 with 1,000 tokens each, times batch + 1
        (7, 0.1 * (0.010 + 8 * 0.0002 + 8_000 * 1e-6) * 8, "fast"),
        (8, 0.1 * (0.010 + 9 * 0.0002 + 9_000 * 1e-6) * 9, "slow"),
    ],
)
def test_lmetric_normalized_is_the_same_product_in_seconds(batch: int, fast: float, chosen: str):
    slow = 0.5 * (0.030 + 0.0010 + 1_000 * 5e-6) * 1
    assert slow == pytest.approx(0.018)
    fleet = views(
        fast={"in_flight": batch, "decoding": batch, "context_tokens": 1_000.0 * batch},
        slow={"cost": SLOW},
    )
    assert scores({"fast": fast, "slow": slow}) == chosen
    assert picked(policy_of("lmetric-normalized"), fleet) == chosen
    # Plain LMetric does not know how fast each one is: 1,000 * (batch + 1) against 1,000 * 1.
    assert picked(policy_of("lmetric"), fleet) == "slow"


@pytest.mark.parametrize(("age_s", "believed"), [(0.0, 0.8), (5.0, 0.5), (10.0, 0.2), (60.0, 0.2)])
def test_an_old_scrape_gives_way_to_the_routers_own_books(age_s: float, believed: float):
    signals = EngineSignals(observed_s=100.0, kv_usage=0.8)
    one = view("a", context_tokens=20_000.0, kv_capacity_tokens=100_000, signals=signals)
    assert kv_usage(one, 100.0 + age_s) == pytest.approx(believed)
