"""Failures open a backend's breaker; one probe at a time finds out when it is well again."""

from __future__ import annotations

import pytest

from router.dispatcher import Dispatcher
from router.domain.decision import Reject, Wait
from router.health.breaker import BreakerConfig
from tests.fakes import LimitPolicy, ask, assigned, make_dispatcher

BREAKER = BreakerConfig(failure_threshold=3, open_s=2.0, max_open_s=30.0)


def one_backend() -> Dispatcher:
    return make_dispatcher("a", policy=LimitPolicy(100), breaker=BREAKER)


def failing(dispatcher: Dispatcher, *names: str, now: float) -> None:
    for name in names:
        dispatcher.dispatch(ask(name), now)
    for name in names:
        dispatcher.fail(name, now)


def half_open() -> Dispatcher:
    """``a`` failed at 0 and may be probed from 2 on."""
    dispatcher = one_backend()
    failing(dispatcher, "f1", "f2", "f3", now=0.0)
    return dispatcher


def state(dispatcher: Dispatcher) -> str:
    return dispatcher.state.get("a").breaker.state


def test_failures_in_a_row_open_the_breaker_and_requests_go_elsewhere():
    dispatcher = make_dispatcher("a", "b", breaker=BREAKER)
    for name in ("f1", "f2", "f3"):
        assert assigned(dispatcher.dispatch(ask(name), 0.0)) == "a"
        assert assigned(dispatcher.redispatch(name, 0.0)) == "b"
        dispatcher.complete(name, 0.0, output_tokens=1)
    assert [assigned(dispatcher.dispatch(ask(n), 1.0)) for n in ("r", "s")] == ["b", "b"]


@pytest.mark.parametrize("soft", ["backpressure", "refused", "cancelled"])
def test_a_busy_engine_a_bad_request_or_a_client_that_left_is_not_its_failure(soft: str):
    dispatcher = one_backend()
    for n in range(20):
        dispatcher.dispatch(ask(f"r{n}"), 0.0)
        if soft == "backpressure":
            dispatcher.fail(f"r{n}", 0.0, backpressure=True)
        elif soft == "refused":
            dispatcher.refuse(f"r{n}", 0.0)
        else:
            dispatcher.cancel(f"r{n}", 0.0)
    assert state(dispatcher) == "closed"


def test_backpressure_on_a_retry_spares_the_breaker_too():
    dispatcher = make_dispatcher("a", "b", breaker=BREAKER)
    for n in range(5):
        assert assigned(dispatcher.dispatch(ask(f"r{n}"), 0.0)) == "a"
        dispatcher.redispatch(f"r{n}", 0.0, backpressure=True)
        dispatcher.complete(f"r{n}", 0.0, output_tokens=1)
    assert state(dispatcher) == "closed"


def test_while_it_is_open_requests_wait_and_are_polled_when_it_may_be_probed():
    dispatcher = half_open()
    assert dispatcher.dispatch(ask("r"), 1.0) == Wait("no_healthy_backend")
    assert dispatcher.next_poll_s() == 2.0
    ((request, decision),) = dispatcher.poll(2.0)
    assert (request.request_id, assigned(decision)) == ("r", "a")


def test_one_probe_at_a_time():
    dispatcher = half_open()
    assert assigned(dispatcher.dispatch(ask("probe"), 2.0)) == "a"
    assert dispatcher.dispatch(ask("r"), 2.0) == Wait("no_healthy_backend")
    assert dispatcher.poll(3.0) == []


def test_the_probes_first_token_closes_it_long_before_the_answer_is_complete():
    dispatcher = half_open()
    dispatcher.dispatch(ask("probe"), 2.0)
    dispatcher.dispatch(ask("r"), 2.0)
    dispatcher.first_token("probe", 3.0)
    assert state(dispatcher) == "closed"
    assert [request.request_id for request, _ in dispatcher.poll(3.0)] == ["r"]


def test_a_probe_that_dies_after_its_first_token_opens_it_again():
    dispatcher = half_open()
    dispatcher.dispatch(ask("probe"), 2.0)
    dispatcher.first_token("probe", 3.0)
    dispatcher.fail("probe", 3.5)
    assert state(dispatcher) == "open"
    dispatcher.dispatch(ask("r"), 3.5)
    assert dispatcher.next_poll_s() == 7.5, "for twice as long"


def test_a_whole_answer_ends_the_trial():
    dispatcher = half_open()
    dispatcher.dispatch(ask("probe"), 2.0)
    dispatcher.first_token("probe", 3.0)
    dispatcher.complete("probe", 4.0, output_tokens=2)
    failing(dispatcher, "f1", "f2", now=5.0)
    assert state(dispatcher) == "closed"
    failing(dispatcher, "f3", now=5.0)
    assert state(dispatcher) == "open"
    dispatcher.dispatch(ask("r"), 5.0)
    assert dispatcher.next_poll_s() == 7.0, "as long as the first time"


def test_a_failed_probe_opens_it_for_twice_as_long():
    dispatcher = half_open()
    dispatcher.dispatch(ask("probe"), 2.0)
    dispatcher.dispatch(ask("r"), 2.0)
    decision = dispatcher.redispatch("probe", 3.0)
    assert isinstance(decision, Reject)
    assert dispatcher.next_poll_s() == 7.0
    assert dispatcher.poll(6.9) == []
    assert [request.request_id for request, _ in dispatcher.poll(7.0)] == ["r"]


@pytest.mark.parametrize("end", ["cancel", "refuse", "busy"])
def test_a_probe_that_says_nothing_makes_room_for_the_next(end: str):
    dispatcher = half_open()
    dispatcher.dispatch(ask("probe"), 2.0)
    if end == "busy":
        dispatcher.fail("probe", 3.0, backpressure=True)
    else:
        getattr(dispatcher, end)("probe", 3.0)
    assert state(dispatcher) == "half_open"
    assert assigned(dispatcher.dispatch(ask("r"), 3.0)) == "a"


class TestOldRequests:
    """Requests sent before the breaker opened end at any time, and say nothing of today."""

    @pytest.fixture
    def dispatcher(self) -> Dispatcher:
        """``old`` was sent at 0, then three others failed."""
        dispatcher = one_backend()
        dispatcher.dispatch(ask("old"), 0.0)
        failing(dispatcher, "f1", "f2", "f3", now=0.0)
        return dispatcher

    def test_their_success_does_not_close_it(self, dispatcher: Dispatcher):
        dispatcher.complete("old", 1.0, output_tokens=1)
        assert state(dispatcher) == "open"

    def test_their_failure_does_not_reopen_it(self, dispatcher: Dispatcher):
        dispatcher.dispatch(ask("probe"), 2.0)
        dispatcher.fail("old", 2.5)
        assert state(dispatcher) == "half_open"
        dispatcher.first_token("probe", 3.0)
        assert state(dispatcher) == "closed"

    def test_their_end_does_not_let_a_second_probe_through(self, dispatcher: Dispatcher):
        dispatcher.dispatch(ask("probe"), 2.0)
        dispatcher.cancel("old", 2.5)
        assert dispatcher.dispatch(ask("r"), 2.6) == Wait("no_healthy_backend")


def test_health_checks_take_a_backend_out_and_bring_it_back():
    dispatcher = make_dispatcher("a", "b")
    dispatcher.set_health("a", healthy=False, now=0.0)
    assert [assigned(dispatcher.dispatch(ask(n), 0.0)) for n in "rs"] == ["b", "b"]
    dispatcher.set_health("a", healthy=True, now=1.0)
    assert assigned(dispatcher.dispatch(ask("t"), 1.0)) == "a"
