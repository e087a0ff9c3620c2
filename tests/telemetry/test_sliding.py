"""Percentiles of the last minutes in bounded memory."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.sliding import ACCURACY, SlidingWindow


@given(st.lists(st.floats(1e-4, 1e5), min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_is_good_to_two_percent(values: list[float], share: float) -> None:
    window = SlidingWindow()
    for value in values:
        window.add(value, 0.0)
    exact = sorted(values)[math.floor(share * (len(values) - 1))]
    got = window.quantile(share, 0.0)
    assert got is not None
    assert abs(math.log(got / exact)) <= 2.2 * ACCURACY


def test_the_exponential_distribution_has_its_quantiles() -> None:
    """-ln(1 - q) at rate 1, within sampling error of 20,000 draws."""
    rng, window = random.Random(1), SlidingWindow()
    for _ in range(20_000):
        window.add(rng.expovariate(1.0), 0.0)
    for share in (0.5, 0.9, 0.99):
        assert window.quantile(share, 0.0) == pytest.approx(-math.log(1 - share), rel=0.06)
    assert window.mean(0.0) == pytest.approx(1.0, rel=0.03)


def test_several_at_once_are_the_same_as_one_by_one() -> None:
    rng, window = random.Random(1), SlidingWindow()
    for _ in range(500):
        window.add(rng.lognormvariate(0, 2), 0.0)
    shares = (0.05, 0.5, 0.5, 0.95, 1.0)
    assert window.quantiles(shares, 0.0) == [window.quantile(share, 0.0) for share in shares]


def test_what_is_old_falls_out() -> None:
    window = SlidingWindow(window_s=100.0, slots=10)
    window.add(1.0, 5.0)
    window.add(3.0, 95.0)
    assert window.count(99.0) == 2
    assert (window.count(101.0), window.quantile(0.5, 101.0)) == (1, pytest.approx(3.0, rel=0.02))
    assert (window.count(300.0), window.quantile(0.5, 300.0), window.mean(300.0)) == (0, None, None)


def test_memory_does_not_grow_with_traffic() -> None:
    window, rng = SlidingWindow(window_s=100.0, slots=10), random.Random(1)
    for n in range(20_000):
        window.add(rng.lognormvariate(0, 3), n * 0.1)
    assert len(window._slots) == 10
    assert sum(len(slot.buckets) for slot in window._slots) < 10 * 640


def test_a_clock_set_back_loses_nothing() -> None:
    window = SlidingWindow(window_s=100.0, slots=10)
    window.add(1.0, 1000.0)
    window.add(1.0, 0.0)
    assert window.count(1000.0) == 2


def test_attainment_is_the_share_that_met() -> None:
    window = SlidingWindow()
    assert window.attainment(0.0) is None
    for met in (True, True, True, False):
        window.judge(met, 0.0)
    assert (window.attainment(0.0), window.met(0.0)) == (0.75, 3)


def test_the_geometric_mean_of_a_ratio_and_its_inverse_is_one() -> None:
    window = SlidingWindow()
    window.add(4.0, 0.0)
    window.add(0.25, 0.0)
    assert window.geometric_mean(0.0) == pytest.approx(1.0)
    assert SlidingWindow().geometric_mean(0.0) is None


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_values_that_are_none_are_ignored(value: float) -> None:
    window = SlidingWindow()
    window.add(value, 0.0)
    assert window.count(0.0) == 0
