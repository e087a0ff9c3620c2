"""What remains of an answer, once so many of its tokens have come."""

from __future__ import annotations

import math

import numpy as np
import pytest

from router.domain.request import LengthForecast, Request

MEDIAN, SIGMA = 128.0, 0.8
LENGTHS = np.exp(np.random.default_rng(0).normal(math.log(MEDIAN), SIGMA, 2_000_000))
CHAT = LengthForecast(
    float(LENGTHS.mean()), float(np.percentile(LENGTHS, 90)), float((LENGTHS**2).mean())
)


@pytest.mark.parametrize("tokens", [1, 50, 200, 1_000])
def test_it_is_what_is_left_of_those_that_are_longer(tokens: int):
    left = LENGTHS[tokens < LENGTHS] - tokens
    forecast = CHAT.beyond(tokens)
    assert forecast.mean_tokens == pytest.approx(left.mean(), rel=0.05)
    assert forecast.p90_tokens == pytest.approx(np.percentile(left, 90), rel=0.05)
    assert forecast.square_tokens == pytest.approx((left**2).mean(), rel=0.15)


def test_who_is_longer_than_expected_is_likely_to_be_much_longer():
    left = [CHAT.beyond(tokens).mean_tokens for tokens in (100, 400, 1_600)]
    assert left == sorted(left)
    assert left[-1] > CHAT.mean_tokens


def test_without_a_square_the_spread_is_that_of_mean_and_percentile():
    told = LengthForecast(CHAT.mean_tokens, CHAT.p90_tokens)
    assert told.beyond(200).mean_tokens == pytest.approx(CHAT.beyond(200).mean_tokens, rel=0.1)


@pytest.mark.parametrize("tokens", [10**5, 10**9])
def test_beyond_all_that_was_seen_it_is_finite(tokens: int):
    forecast = CHAT.beyond(tokens)
    assert 1.0 <= forecast.mean_tokens < forecast.p90_tokens < tokens
    assert forecast.square_tokens >= forecast.mean_tokens**2


@pytest.mark.parametrize("forecast", [LengthForecast(0.0, 0.0), LengthForecast(100.0, 100.0)])
@pytest.mark.parametrize("tokens", [0, 1, 99, 100, 101, 10_000])
def test_there_is_always_a_token_left(forecast: LengthForecast, tokens: int):
    left = forecast.beyond(tokens)
    assert left.mean_tokens >= 1.0
    assert left.p90_tokens >= 1.0


def test_an_answer_that_broke_off_goes_on_with_what_remains():
    request = Request("r", "m", 0.0, 1_000, max_tokens=2_000, forecast=CHAT)
    request.carry(400, first_s=1.0)
    assert request.forecast == CHAT.beyond(400)
    assert request.forecast.mean_tokens > 200  # and not one token, as 'mean less 400' would have it
