"""Hedging for TTFT: worth its price, within its budget, and the books balance."""

from __future__ import annotations

from typing import Any

import pytest

from router.config.build import rebuild_dispatcher
from router.dispatcher import Dispatcher
from router.domain.decision import Wait
from router.domain.errors import UnknownNameError
from router.hedge import HedgeBudget, HedgeRules
from router.log_replay import replay
from tests.fakes import LimitPolicy, Recorder, ask, assigned, balance, loads, make_dispatcher
from tests.parity.recording import Recording


def hedging(*backends: str, **rules: Any) -> Dispatcher:
    dispatcher = make_dispatcher(*backends, policy=LimitPolicy(10_000))
    dispatcher.hedging = HedgeBudget(HedgeRules(**rules))
    return dispatcher


def test_the_time_to_think_is_a_multiple_of_the_prediction():
    dispatcher = hedging("a", "b", after=3.0, at_least_s=0.01)
    dispatcher.dispatch(ask("r"), 10.0)
    # 0.1 s of prefill and 1.49 iterations of an idle engine: 10 ms each.
    predicted = 0.1 + (1_000 / 2_048 + 1) * 0.010
    assert dispatcher.hedge_due_s("r") == pytest.approx(10.0 + 3 * predicted)
    assert dispatcher.hedge_due_s("unheard-of") is None


def test_off_unless_asked_for():
    dispatcher = make_dispatcher("a", "b")
    dispatcher.dispatch(ask("r"), 0.0)
    assert dispatcher.hedge_due_s("r") is None
    assert dispatcher.hedge("r", 100.0) is None


class TestTheRace:
    """Two attempts; whoever answers first serves."""

    def race(self) -> Dispatcher:
        dispatcher = hedging("a", "b", "c")
        assert assigned(dispatcher.dispatch(ask("r"), 0.0)) == "a"
        decision = dispatcher.hedge("r", 1.0)
        assert decision is not None
        assert decision.backend.name == "b"
        assert loads(dispatcher) == {"a": 1, "b": 1, "c": 0}
        assert dispatcher.in_flight == 1, "one request, whatever its attempts"
        assert balance(dispatcher) == 0
        return dispatcher

    @pytest.mark.parametrize(("winner", "won"), [("a", 0), ("b", 1)])
    def test_the_loser_is_off_the_books_at_once(self, winner: str, won: int):
        dispatcher = self.race()
        dispatcher.win("r", winner, 1.2)
        assert loads(dispatcher) == {"a": 0, "b": 0, "c": 0, winner: 1}
        dispatcher.first_token("r", 1.2)
        outcome = dispatcher.complete("r", 2.0, output_tokens=10)
        assert outcome.backend == winner
        assert set(loads(dispatcher).values()) == {0}
        assert dispatcher.hedging is not None
        assert (dispatcher.hedging.sent, dispatcher.hedging.won) == (1, won)

    def test_never_a_third(self):
        assert self.race().hedge("r", 50.0) is None

    @pytest.mark.parametrize(("failed", "stays"), [("a", "b"), ("b", "a")])
    def test_if_one_fails_the_other_goes_on_and_neither_is_tried_again(
        self, failed: str, stays: str
    ):
        dispatcher = self.race()
        dispatcher.withdraw("r", failed, 1.1)
        assert loads(dispatcher) == {"a": 0, "b": 0, "c": 0, stays: 1}
        assert assigned(dispatcher.redispatch("r", 1.2)) == "c"
        assert balance(dispatcher) == 0

    @pytest.mark.parametrize("end", ["cancel", "fail", "refuse"])
    def test_whatever_ends_the_request_ends_both(self, end: str):
        dispatcher = self.race()
        getattr(dispatcher, end)("r", 2.0)
        assert set(loads(dispatcher).values()) == {0}
        assert balance(dispatcher) == 0

    def test_a_loser_teaches_nothing(self):
        recorder = Recorder()
        dispatcher = make_dispatcher("a", "b", policy=LimitPolicy(9), observers=[recorder])
        dispatcher.hedging = HedgeBudget(HedgeRules())
        dispatcher.dispatch(ask("r"), 0.0)
        dispatcher.hedge("r", 1.0)
        dispatcher.win("r", "b", 1.2)
        dispatcher.complete("r", 2.0, output_tokens=10)
        assert [o.backend for o in recorder.outcomes] == ["b"]


def test_not_where_somebody_waits():
    dispatcher = make_dispatcher("a", "b", policy=LimitPolicy(1))
    dispatcher.hedging = HedgeBudget(HedgeRules(gain=0.0))
    assert assigned(dispatcher.dispatch(ask("r"), 0.0)) == "a"
    assert assigned(dispatcher.dispatch(ask("s"), 0.0)) == "b"
    assert dispatcher.dispatch(ask("waits"), 0.0) == Wait("saturated")
    assert dispatcher.hedge("r", 9.0) is None
    dispatcher.cancel("waits", 9.0)
    second = dispatcher.hedge("r", 9.0)
    assert second is not None
    assert second.backend.name == "b"


def test_not_after_the_first_token():
    dispatcher = hedging("a", "b")
    dispatcher.dispatch(ask("r"), 0.0)
    dispatcher.first_token("r", 0.9)
    assert dispatcher.hedge("r", 1.0) is None


def test_not_where_the_gain_does_not_exceed_the_cost():
    dispatcher = hedging("a", "b", gain=2.0)
    dispatcher.dispatch(ask("r"), 0.0)
    # The other would take 0.115 s, the work is 0.1 s: 0.3 s of waiting do not pay, 0.4 do.
    assert dispatcher.hedge("r", 0.3) is None
    assert dispatcher.hedge("r", 0.4) is not None


def test_extra_work_never_exceeds_the_budget_by_more_than_its_burst():
    dispatcher = hedging("a", "b", extra=0.05)
    for n in range(2_000):
        dispatcher.dispatch(ask(f"r{n}"), 0.0)
        dispatcher.hedge(f"r{n}", 1_000.0 + n)
        dispatcher.cancel(f"r{n}", 1_000.0 + n)
    budget = dispatcher.hedging
    assert budget is not None
    assert budget.base_s == pytest.approx(200.0)
    assert budget.extra_s == pytest.approx(0.05 * 200.0 + 2.0, abs=0.11)
    assert budget.sent < 2_000


def test_who_wins_a_race_must_be_known():
    with pytest.raises(UnknownNameError):
        hedging("a").win("nobody", "a", 0.0)


def test_the_decision_log_replays_it():
    log = Recording("motley", hedging={"enabled": True, "extra": 1.0, "gain": 0.0}).log
    text = b"".join(log)
    assert b'"call":"hedge"' in text
    assert b'"call":"win"' in text
    assert b'"call":"withdraw"' in text
    assert replay(log, rebuild_dispatcher) == len(log) - 1
