"""Own delay, the delay inflicted on others, and the price, for 1,000 tokens in and 100 out."""

from __future__ import annotations

from typing import Any

import pytest

from router.policies.marginal_delay import engine_s, inflicted_s
from tests.fakes import SLOW, ask, view, views
from tests.router.policies.picking import picked, policy_of, scores

REQUEST = ask(forecast=100.0)
CHUNKS = 1_000 / 2_048 + 1  # iterations of prefill

# An idle slow backend: TTFT 0.5 s of prefill and 30 ms an iteration; TPOT with 1,050 tokens held.
SLOW_S = 0.5 + CHUNKS * 0.030 + 100 * (0.030 + 0.0010 + 1_050 * 5e-6)
# An idle fast one.
FAST_S = 0.1 + CHUNKS * 0.010 + 100 * (0.010 + 0.0002 + 1_050 * 1e-6)


def crowd(n: int) -> dict[str, Any]:
    """n requests decoding, each 1,050 tokens of context and 50 tokens to come."""
    return {
        "in_flight": n,
        "decoding": n,
        "context_tokens": 1_050.0 * n,
        "pending_output_tokens": 50.0 * n,
    }


def own_s(n: int) -> float:
    """Delay of the request itself on a fast backend with a crowd of n."""
    share = 0.010 + n * 0.0002 + 1_050 * n * 1e-6
    ttft = 0.5 * share + 0.1 + CHUNKS * share
    return ttft + 100 * (0.010 + (n + 1) * 0.0002 + 1_050 * (n + 1) * 1e-6)


def inflicted_on(n: int) -> float:
    """Its prefill stalls n decoders; its decode slows the 50 tokens left of each."""
    return 0.1 * n + (0.0002 + 1_050 * 1e-6) * 50 * n


@pytest.mark.parametrize(("n", "chosen"), [(2, "fast"), (10, "fast"), (11, "slow")])
def test_the_fast_card_is_filled_until_the_slow_one_does_less_harm(n: int, chosen: str):
    fleet = views(fast=crowd(n), slow={"cost": SLOW})
    assert scores({"fast": own_s(n) + inflicted_on(n), "slow": SLOW_S}) == chosen
    assert picked(policy_of("marginal-delay"), fleet, REQUEST) == chosen


def test_without_the_externality_it_is_greedy_and_overfills_the_fast_card():
    fleet = views(fast=crowd(11), slow={"cost": SLOW})
    assert scores({"fast": own_s(11), "slow": SLOW_S}) == "fast"
    assert picked(policy_of("marginal-delay", externality=0.0), fleet, REQUEST) == "fast"


@pytest.mark.parametrize(("price", "chosen"), [(2.0, "fast"), (2.5, "slow")])
def test_a_price_on_the_fast_group_sends_requests_to_the_slow_one(price: float, chosen: str):
    engine = 0.1 + 100 * (0.0002 + 1_050 * 1e-6 + 0.010)
    fleet = views(fast={"price": price}, slow={"cost": SLOW})
    assert engine_s(fleet[0], 1_000, 100.0) == pytest.approx(engine)
    assert scores({"fast": FAST_S + price * engine, "slow": SLOW_S}) == chosen
    assert picked(policy_of("marginal-delay", price_weight=1.0), fleet, REQUEST) == chosen
    assert picked(policy_of("marginal-delay"), fleet, REQUEST) == "fast"


def test_inflicted_delay_is_the_sum_over_those_who_are_there():
    assert inflicted_s(view(), 1_000, 100.0) == 0.0
    assert inflicted_s(view(**crowd(3)), 1_000, 100.0) == pytest.approx(inflicted_on(3))


def test_nobody_is_slowed_for_longer_than_the_request_lasts_or_he_himself():
    slowed = 0.0002 + 1e-6 * (1_000 + 5)
    # Ten tokens of ours beside three others: 30 tokens slowed, not 300.
    assert inflicted_s(view(**crowd(3)), 1_000, 10.0) == pytest.approx(0.3 + slowed * 30)


def test_a_step_is_shared_by_the_batch():
    # Three others: a quarter of each iteration's fixed 10 ms.
    expected = 0.1 + 100 * (0.0002 + 1_050 * 1e-6 + 0.010 / 4)
    assert engine_s(view(**crowd(3)), 1_000, 100.0) == pytest.approx(expected)
