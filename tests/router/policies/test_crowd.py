"""How much those count who are met at a backend."""

from __future__ import annotations

import pytest

from router.policies.crowd import Crowd


def test_they_count_as_much_as_they_do_on_average():
    crowd = Crowd()
    assert crowd.weight == 1.0
    crowd.enter(1.0)
    number = crowd.enter(0.25)
    assert crowd.weight == pytest.approx(0.625)
    crowd.enter(0.25)
    assert crowd.weight == pytest.approx(0.5)
    crowd.leave(0.25, number)
    assert crowd.weight == pytest.approx(0.625)
    crowd.leave(0.25, number)
    assert crowd.weight == 1.0


def test_where_nobody_is_left_rounding_leaves_nothing_either():
    crowd = Crowd()
    for number in [crowd.enter(0.1) for _ in range(3)]:
        crowd.leave(0.1, number)
    crowd.enter(0.04)
    assert crowd.weight == 0.04


def test_whoever_ends_after_its_crowd_was_gone_takes_nobody_elses_place():
    crowd = Crowd()
    gone = crowd.enter(1.0)
    crowd.disperse()
    crowd.enter(0.04)
    crowd.leave(1.0, gone)
    assert crowd.weight == 0.04


def test_an_idle_backend_that_nobody_was_at_stays_the_same_crowd():
    crowd = Crowd()
    crowd.disperse()
    assert crowd.number == 0
    crowd.leave(1.0, 0)
    assert crowd.weight == 1.0
