"""Scores, intervals and the verdict."""

from __future__ import annotations

import random

import pytest

from simulator.evaluate.figures import quality_of, wilson


def test_wilson_agrees_with_the_textbook():
    found = wilson([1.0] * 8 + [0.0] * 2)
    assert (found.value, found.low, found.high) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)
    perfect = wilson([1.0] * 20)
    assert (perfect.value, perfect.high) == (1.0, 1.0)
    assert perfect.low == pytest.approx(0.839, abs=1e-3)


def scores(right: int, of: int = 20) -> dict[str, list[float]]:
    return {name: [1.0] * right + [0.0] * (of - right) for name in ("qa", "reasoning", "code")}


def test_categories_count_alike_whatever_their_size():
    found = quality_of({"qa": [1.0] * 100, "code": [0.0] * 10}, None)
    assert (found.overall.value, found.standing) == (0.5, "baseline")
    assert found.ratio.value == 1.0


def test_the_verdict_knows_when_it_cannot_tell():
    many, few = 200, 20
    assert quality_of(scores(many, many), scores(many, many)).standing == "within"
    same = quality_of(scores(few), scores(few))
    assert same.ratio.value == 1.0
    assert same.standing == "unsure"  # sixty equal answers: 3 % may well be hidden behind them
    assert quality_of(scores(10), scores(few)).standing == "below"
    assert quality_of(scores(19), scores(few)).standing == "unsure"
    assert quality_of(scores(many - 2, many), scores(many, many)).standing == "within"


def test_the_ratio_is_against_the_baselines_score():
    found = quality_of(scores(9), scores(10))
    assert found.ratio.value == pytest.approx(0.9)
    assert found.ratio.low < 0.9 < found.ratio.high


def test_a_baseline_that_knows_nothing_compares_with_nothing():
    found = quality_of(scores(3), scores(0))
    assert (found.standing, found.ratio.value) == ("unsure", 1.0)


def test_the_interval_of_the_ratio_holds_the_truth():
    """Two models right on 80 % and 76 % of all items there are, asked samples of 60. They differ on
    two or three items of a sample, where an interval of 95 % by name holds a little less often."""
    rng = random.Random(0)
    held = 0
    for _ in range(300):
        best = {"a": [float(rng.random() < 0.8) for _ in range(60)]}
        mine = {"a": [score and float(rng.random() < 0.95) for score in best["a"]]}
        found = quality_of(mine, best).ratio
        held += found.low <= 0.95 <= found.high
    assert 0.92 * 300 <= held < 300
