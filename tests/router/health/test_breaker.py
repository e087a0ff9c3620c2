from __future__ import annotations

import math

import pytest

from router.health.breaker import BreakerConfig, CircuitBreaker

CONFIG = BreakerConfig(failure_threshold=3, open_s=2.0, max_open_s=7.0)


def opened(at: float = 0.0) -> CircuitBreaker:
    breaker = CircuitBreaker(CONFIG)
    for _ in range(3):
        breaker.failed(at)
    return breaker


def half_open() -> CircuitBreaker:
    breaker = opened()
    breaker.tick(2.0)
    return breaker


def test_it_opens_at_the_threshold_of_failures_in_a_row():
    breaker = CircuitBreaker(CONFIG)
    breaker.failed(0.0)
    breaker.failed(0.0)
    assert breaker.allows()
    breaker.failed(0.0)
    assert not breaker.allows()
    assert breaker.half_opens_s == 2.0


def test_a_success_between_failures_starts_the_count_again():
    breaker = CircuitBreaker(CONFIG)
    for _ in range(10):
        breaker.failed(0.0)
        breaker.failed(0.0)
        breaker.succeeded()
    assert breaker.state == "closed"


def test_it_half_opens_when_its_time_has_come_and_not_before():
    breaker = opened(at=10.0)
    breaker.tick(math.nextafter(12.0, 0.0))
    assert breaker.state == "open"
    breaker.tick(12.0)
    assert breaker.state == "half_open"
    assert breaker.half_opens_s == math.inf


def test_half_open_lets_one_probe_through_at_a_time():
    breaker = half_open()
    assert breaker.allows()
    assert breaker.sent()
    assert not breaker.allows()


def test_a_served_probe_closes_it():
    breaker = half_open()
    breaker.succeeded(breaker.sent())
    assert breaker.state == "closed"
    assert breaker.allows()


def test_failed_probes_double_the_time_up_to_the_ceiling_and_a_success_forgets_them():
    breaker, now, waits = opened(), 0.0, []
    for _ in range(4):
        waits.append(breaker.half_opens_s - now)
        now = breaker.half_opens_s
        breaker.tick(now)
        breaker.failed(now, breaker.sent())
    assert waits == [2.0, 4.0, 7.0, 7.0]
    breaker.tick(breaker.half_opens_s)
    breaker.succeeded(breaker.sent())
    for _ in range(3):
        breaker.failed(100.0)
    assert breaker.half_opens_s == 102.0


def test_an_abandoned_probe_makes_room_for_the_next():
    breaker = half_open()
    breaker.abandoned(breaker.sent())
    assert breaker.state == "half_open"
    assert breaker.allows()


def test_a_request_sent_while_closed_is_no_probe():
    assert not CircuitBreaker(CONFIG).sent()


@pytest.mark.parametrize("state", ["open", "half_open", "probed"])
def test_requests_sent_before_it_opened_change_nothing_any_more(state: str):
    breaker = opened() if state == "open" else half_open()
    if state == "probed":
        breaker.sent()
    was = (breaker.state, breaker.half_opens_s, breaker.allows())
    breaker.succeeded()
    breaker.failed(5.0)
    breaker.abandoned(0)
    assert (breaker.state, breaker.half_opens_s, breaker.allows()) == was


def test_a_probe_given_up_for_lost_cannot_speak_for_the_next_one():
    breaker = half_open()
    first = breaker.sent()
    breaker.abandoned(first)
    second = breaker.sent()
    breaker.abandoned(first)
    breaker.failed(3.0, first)
    breaker.succeeded(first)
    assert breaker.state == "half_open"
    assert not breaker.allows(), "the second probe is still out"
    breaker.succeeded(second)
    assert breaker.state == "closed"


def test_what_holds_unless_the_configuration_says_otherwise():
    assert BreakerConfig() == BreakerConfig(failure_threshold=3, open_s=2.0, max_open_s=30.0)


def test_a_backend_that_fails_too_often_is_put_out_for_the_first_time_of_many():
    breaker = CircuitBreaker(CONFIG)
    breaker.eject(5.0)
    assert (breaker.state, breaker.half_opens_s) == ("open", 5.0 + CONFIG.open_s)


def test_one_that_is_out_already_is_not_put_out_for_longer():
    for breaker in (opened(), half_open()):
        was = (breaker.state, breaker.half_opens_s)
        breaker.eject(50.0)
        assert (breaker.state, breaker.half_opens_s) == was
