"""The filter behind every learner, against closed forms and against bad data."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.log_filter import CLIP, SURPRISES, LogFilter


def still(spread: tuple[float, ...] = (0.5,), noise: float = 0.2) -> LogFilter:
    """Factors that do not wander."""
    return LogFilter(spread, (0.0,) * len(spread), limit=3.0, noise=noise)


def test_one_part_is_the_textbook_update() -> None:
    """Prior N(0, 0.5^2), one observation of log 1.3 with noise 0.2: gain 0.25/0.29."""
    kalman = still()
    step = kalman.learn([2.0], 2.6, "c", 0.0)
    assert step is not None
    assert step.error == pytest.approx(math.log(1.3))
    assert step.scale == pytest.approx(math.sqrt(0.29))
    assert kalman.phi[0] == pytest.approx(math.log(1.3) * 0.25 / 0.29)
    assert kalman.deviation(0) == pytest.approx(math.sqrt(0.25 - 0.25 * 0.25 / 0.29))


def test_two_parts_are_told_apart_by_different_mixes() -> None:
    """Durations that are mostly the one or mostly the other give both factors."""
    kalman, rng = still((0.7, 0.7)), random.Random(1)
    for n in range(200):
        base = (0.9, 0.1) if n % 2 else (0.1, 0.9)
        truth = base[0] * 2.0 + base[1] * 0.5
        kalman.learn(base, truth * rng.lognormvariate(0.0, 0.1), "c", 0.0)
    assert kalman.factors() == (pytest.approx(2.0, rel=0.05), pytest.approx(0.5, rel=0.05))


def test_what_cannot_be_told_apart_says_so() -> None:
    """Always half and half: the sum becomes known, the parts do not."""
    kalman = still((0.5, 0.5))
    for _ in range(300):
        kalman.learn((0.5, 0.5), 1.5, "c", 0.0)
    assert kalman.predict((0.5, 0.5)) == pytest.approx(1.5, rel=0.01)
    assert kalman.deviation(0) > 0.3


def test_an_outlier_moves_it_no_more_than_the_clip() -> None:
    kalman = still(noise=0.1)
    for _ in range(100):
        kalman.learn([1.0], 1.0, "c", 0.0)
    before = kalman.phi[0]
    step = kalman.learn([1.0], 1e9, "c", 0.0)
    assert step is not None
    assert 0 < kalman.phi[0] - before < CLIP * step.scale * 0.1


def test_five_percent_of_garbage_does_not_move_the_answer() -> None:
    kalman, rng = still(noise=0.2), random.Random(2)
    for n in range(1000):
        actual = 1e4 if n % 20 == 0 else 1.5 * rng.lognormvariate(0.0, 0.1)
        kalman.learn([1.0], actual, "c", 0.0)
    assert kalman.factors()[0] == pytest.approx(1.5, rel=0.05)


def test_a_wandering_factor_is_followed() -> None:
    """Twice as slow from one moment on, seen twice a second: within 10% after a minute."""
    kalman = LogFilter((0.5,), (0.01,), limit=3.0, noise=0.1)
    for n in range(200):
        kalman.learn([1.0], 1.0, "c", n * 0.5)
    for n in range(120):
        kalman.learn([1.0], 2.0, "c", 100 + n * 0.5)
    assert kalman.factors()[0] == pytest.approx(2.0, rel=0.1)


def test_idle_time_makes_it_less_sure_and_a_clock_that_jumps_does_no_harm() -> None:
    kalman = LogFilter((0.5,), (0.01,), limit=3.0, noise=0.1)
    for n in range(50):
        kalman.learn([1.0], 1.0, "c", float(n))
    sure = kalman.deviation(0)
    kalman.learn([1.0], 1.0, "c", -1e12)
    assert kalman.deviation(0) <= sure
    kalman.learn([1.0], 1.0, "c", 1e12)
    assert kalman.deviation(0) < 0.5
    assert kalman.factors()[0] == pytest.approx(1.0, rel=0.01)


def test_loosening_makes_it_quick_again() -> None:
    slow, quick = still(noise=0.1), still(noise=0.1)
    for kalman in (slow, quick):
        for _ in range(200):
            kalman.learn([1.0], 1.0, "c", 0.0)
    quick.loosen(0, 0.5)
    for kalman in (slow, quick):
        for _ in range(4):
            kalman.learn([1.0], 2.0, "c", 0.0)
    assert slow.factors()[0] < 1.2
    assert quick.factors()[0] > 1.5


@pytest.mark.parametrize("duration", [0.0, -1.0, math.nan, math.inf])
def test_durations_that_are_none_are_refused(duration: float) -> None:
    kalman = still()
    assert kalman.learn([1.0], duration, "c", 0.0) is None
    assert kalman.phi == [0.0]
    assert still().learn([0.0], 1.0, "c", 0.0) is None


@given(
    st.lists(
        st.tuples(
            st.floats(0, 1e6),
            st.floats(0, 1e6),
            st.floats(allow_nan=True, allow_infinity=True),
            st.floats(-1e12, 1e12),
        ),
        max_size=60,
    )
)
def test_nothing_that_comes_can_break_it(
    observations: list[tuple[float, float, float, float]],
) -> None:
    kalman = LogFilter((0.5, 0.5), (0.01, 0.01), limit=2.5, noise=0.2)
    for one, two, duration, at_s in observations:
        kalman.learn((one, two), duration, "c", at_s)
        kalman.loosen(1, 0.3)
    for part in (0, 1):
        assert abs(kalman.phi[part]) <= 2.5
        assert 0 < kalman.deviation(part) < 2


def test_a_few_that_are_far_off_move_next_to_nothing_and_a_row_of_them_is_a_change() -> None:
    kalman = still(noise=0.1)
    for _ in range(200):
        kalman.learn([1.0], 1.0, "c", 0.0)
    for _ in range(SURPRISES - 1):
        kalman.learn([1.0], 10.0, "c", 0.0)
    assert kalman.factors()[0] < 1.1
    kalman.learn([1.0], 1.0, "c", 0.0)
    assert kalman.factors()[0] < 1.1
    for _ in range(SURPRISES + 2):
        kalman.learn([1.0], 10.0, "c", 0.0)
    assert kalman.factors()[0] == pytest.approx(10.0, rel=0.1)


def test_surprises_in_both_directions_are_no_change() -> None:
    kalman = still(noise=0.1)
    for _ in range(200):
        kalman.learn([1.0], 1.0, "c", 0.0)
    for n in range(40):
        kalman.learn([1.0], 10.0 if n % 2 else 0.1, "c", 0.0)
    assert 0.8 < kalman.factors()[0] < 1.25
