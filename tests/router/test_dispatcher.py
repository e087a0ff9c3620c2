"""The life of a request, and the counts that go with it (I1, I2)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from router.dispatcher import Dispatcher
from router.domain.decision import Assign, Reject, Wait
from router.domain.errors import BadInputError, UnknownNameError
from router.domain.state import EngineSignals
from router.health.breaker import BreakerConfig
from tests.fakes import (
    MODEL,
    SLOW,
    LimitPolicy,
    Recorder,
    ask,
    assigned,
    balance,
    capability,
    loads,
    make_dispatcher,
    spec,
)


def counts(dispatcher: Dispatcher) -> dict[str, int]:
    """Everything that is not 0."""
    assert balance(dispatcher) == 0
    names = ("arrived", "completed", "failed", "cancelled", "rejected", "in_flight", "queued")
    return {name: getattr(dispatcher, name) for name in names if getattr(dispatcher, name)}


class TestLife:
    def test_of_a_request_that_goes_well(self):
        recorder = Recorder()
        dispatcher = make_dispatcher("a", observers=[recorder])
        request = ask("r", arrival_s=1.0, tenant="acme", max_tokens=500)
        assert dispatcher.dispatch(request, 1.25) == Assign(spec("a"))
        assert counts(dispatcher) == {"arrived": 1, "in_flight": 1}
        dispatcher.first_token("r", 2.0)
        told = dispatcher.complete(
            "r", 6.0, output_tokens=41, prompt_tokens=1010, cached_tokens=512
        )
        assert counts(dispatcher) == {"arrived": 1, "completed": 1}
        assert recorder.outcomes == [told]
        assert (told.backend, told.status, told.tenant, told.max_tokens) == (
            "a",
            "completed",
            "acme",
            500,
        )
        assert (told.arrival_s, told.dispatched_s, told.first_token_s, told.finished_s) == (
            1.0,
            1.25,
            2.0,
            6.0,
        )
        assert (told.prompt_tokens, told.output_tokens, told.cached_tokens) == (1010, 41, 512)
        assert (told.ttft_s, told.e2e_s, told.tpot_s) == (1.0, 5.0, 0.1)
        assert told.predicted_output_tokens == 100.0

    def test_the_prediction_at_dispatch_includes_the_time_already_lost(self):
        recorder = Recorder()
        dispatcher = make_dispatcher("a", observers=[recorder])
        dispatcher.dispatch(ask("r", arrival_s=1.0, prompt_tokens=2048), 4.0)
        told = dispatcher.complete("r", 9.0, output_tokens=1)
        # 2,048 tokens at 0.1 ms, and two iterations' worth of overhead of 10 ms.
        assert told.predicted_ttft_s == pytest.approx(3.0 + 0.2048 + 0.020)
        # step 10 ms, one sequence of 0.2 ms, 2,048 + 50 tokens of context of 1 us.
        assert told.predicted_tpot_s == pytest.approx(0.010 + 0.0002 + 0.002098)

    def test_it_may_be_sent_first_and_booked_afterwards(self):
        recorders = Recorder(), Recorder()
        early, late = (make_dispatcher("a", "b", observers=[r]) for r in recorders)
        for n in range(4):
            early.dispatch(ask(f"r{n}", arrival_s=1.0), 1.25)
            assert isinstance(
                late.dispatch(ask(f"r{n}", arrival_s=1.0), 1.25, booked=False), Assign
            )
            assert late.in_flight == n
            late.book()
            late.book()  # whoever may have been first
            assert counts(late) == counts(early)
            assert loads(late) == loads(early)
        for n in range(4):
            assert early.complete(f"r{n}", 2.0, output_tokens=7) == late.complete(
                f"r{n}", 2.0, output_tokens=7
            )
        assert recorders[0].outcomes == recorders[1].outcomes

    def test_it_may_be_over_before_it_was_booked(self):
        dispatcher = make_dispatcher("a", "b")
        sent = dispatcher.dispatch(ask("r"), 0.0, booked=False)
        elsewhere = dispatcher.redispatch("r", 0.1)
        assert isinstance(sent, Assign)
        assert isinstance(elsewhere, Assign)
        assert sent.backend != elsewhere.backend
        dispatcher.book()
        assert loads(dispatcher) == {sent.backend.name: 0, elsewhere.backend.name: 1}
        dispatcher.dispatch(ask("s"), 0.2, booked=False)
        dispatcher.cancel("s", 0.3)
        assert counts(dispatcher) == {"arrived": 2, "cancelled": 1, "in_flight": 1}

    def test_the_next_is_decided_on_with_all_before_it_booked(self):
        dispatcher = make_dispatcher("a", "b")
        for n in range(4):
            dispatcher.dispatch(ask(f"r{n}"), 0.0, booked=False)
        dispatcher.book()
        assert loads(dispatcher) == {"a": 2, "b": 2}

    def test_only_who_is_assigned_is_booked(self):
        dispatcher = make_dispatcher("a", policy=LimitPolicy(1))
        dispatcher.dispatch(ask("r"), 0.0)
        assert isinstance(dispatcher.dispatch(ask("s"), 0.0, booked=False), Wait)
        dispatcher.book()
        assert counts(dispatcher) == {"arrived": 2, "in_flight": 1, "queued": 1}
        dispatcher.complete("r", 1.0, output_tokens=1)
        [(request, decision)] = dispatcher.poll(1.0)
        assert (request.request_id, decision) == ("s", Assign(spec("a")))
        assert counts(dispatcher) == {"arrived": 2, "completed": 1, "in_flight": 1}

    def test_the_policy_sees_the_forecast(self):
        dispatcher = make_dispatcher("a")
        request = ask("r", max_tokens=150)
        dispatcher.dispatch(request, 0.0)
        assert (request.forecast.mean_tokens, request.forecast.p90_tokens) == (100.0, 150.0)

    def test_the_engines_own_token_counts_are_optional(self):
        dispatcher = make_dispatcher("a")
        dispatcher.dispatch(ask("r", prompt_tokens=777), 0.0)
        told = dispatcher.complete("r", 1.0, output_tokens=1)
        assert (told.prompt_tokens, told.cached_tokens) == (777, None)

    def test_a_second_first_token_changes_nothing(self):
        dispatcher = make_dispatcher("a")
        dispatcher.dispatch(ask("r"), 0.0)
        dispatcher.first_token("r", 1.0)
        dispatcher.first_token("r", 2.0)
        assert dispatcher.complete("r", 3.0, output_tokens=5).first_token_s == 1.0
        assert dispatcher.state.get("a").decoding == 0

    def test_the_first_token_is_told_once_to_observers_who_listen(self):
        heard = []

        class Early(Recorder):
            def began(self, request_id, backend, attempt):
                heard.append((request_id, backend, attempt.dispatched_s, attempt.first_token_s))

        dispatcher = make_dispatcher("a", observers=[Recorder(), Early()])
        dispatcher.dispatch(ask("r"), 1.0)
        dispatcher.presume_first_token("r", 1.5)
        for now in (2.0, 3.0):
            dispatcher.first_token("r", now)
        assert heard == [("r", "a", 1.0, 2.0)]

    def test_a_first_token_may_be_presumed_where_the_answer_is_not_streamed(self):
        dispatcher = make_dispatcher("a")
        dispatcher.dispatch(ask("r"), 0.0)
        dispatcher.presume_first_token("r", 1.0)
        backend = dispatcher.state.get("a")
        assert (backend.prefilling, backend.decoding) == (0, 1)
        assert dispatcher.complete("r", 2.0, output_tokens=5).ttft_s is None
        assert (backend.in_flight, backend.decoding) == (0, 0)

    def test_a_presumed_first_token_vouches_for_nobody(self):
        dispatcher = make_dispatcher("a", breaker=BreakerConfig(failure_threshold=1, open_s=1.0))
        dispatcher.dispatch(ask("r"), 0.0)
        dispatcher.fail("r", 0.0)
        dispatcher.dispatch(ask("probe"), 1.0)
        dispatcher.presume_first_token("probe", 2.0)
        assert dispatcher.state.get("a").breaker.state == "half_open"

    @pytest.mark.parametrize("end", ["fail", "refuse", "cancel"])
    @pytest.mark.parametrize("begun", [False, True])
    def test_every_end_gives_everything_back(self, end: str, begun: bool):
        recorder = Recorder()
        dispatcher = make_dispatcher("a", observers=[recorder])
        dispatcher.dispatch(ask("r"), 0.0)
        if begun:
            dispatcher.first_token("r", 0.5)
        getattr(dispatcher, end)("r", 1.0)
        ended = "cancelled" if end == "cancel" else "failed"
        assert counts(dispatcher) == {"arrived": 1, ended: 1}
        assert [o.status for o in recorder.outcomes] == [ended]
        backend = dispatcher.state.get("a")
        assert (backend.in_flight, backend.prefilling, backend.decoding) == (0, 0, 0)
        assert (backend.context_tokens, backend.pending_prefill_tokens) == (0.0, 0)

    def test_who_leaves_in_mid_answer_is_remembered_with_what_it_got(self):
        recorder = Recorder()
        dispatcher = make_dispatcher("a", observers=[recorder])
        dispatcher.dispatch(ask("r"), 0.0)
        dispatcher.first_token("r", 1.0)
        dispatcher.cancel("r", 2.0, output_tokens=17)
        assert recorder.outcomes[0].output_tokens == 17

    @pytest.mark.parametrize(
        "end", ["first_token", "redispatch", "fail", "refuse", "cancel", "complete"]
    )
    def test_nothing_can_happen_to_a_request_that_is_over(self, end: str):
        dispatcher = make_dispatcher("a")
        dispatcher.dispatch(ask("r"), 0.0)
        dispatcher.fail("r", 1.0)
        arguments = {"output_tokens": 1} if end == "complete" else {}
        with pytest.raises(UnknownNameError, match="'r'"):
            getattr(dispatcher, end)("r", 2.0, **arguments)
        assert counts(dispatcher) == {"arrived": 1, "failed": 1}

    def test_an_id_is_free_again_when_its_request_is_over(self):
        dispatcher = make_dispatcher("a", policy=LimitPolicy(1))
        dispatcher.dispatch(ask("r"), 0.0)
        dispatcher.dispatch(ask("waits"), 0.0)
        for living in ("r", "waits"):
            with pytest.raises(BadInputError, match=f"request id '{living}' is taken"):
                dispatcher.dispatch(ask(living), 1.0)
        assert counts(dispatcher) == {"arrived": 2, "in_flight": 1, "queued": 1}
        dispatcher.complete("r", 2.0, output_tokens=1)
        dispatcher.dispatch(ask("r"), 3.0)

    def test_requests_that_may_not_be_served_teach_the_predictor_nothing(self):
        dispatcher = make_dispatcher("a")
        request = ask("r", model="invented")
        dispatcher.dispatch(request, 0.0)
        assert request.forecast.p90_tokens == 0.0
        assert counts(dispatcher) == {"arrived": 1, "rejected": 1}


class TestRedispatch:
    """The attempt failed before its first byte: never the same backend twice (I8)."""

    def test_goes_through_all_backends_once_and_then_gives_up(self):
        recorder = Recorder()
        dispatcher = make_dispatcher("a", "b", "c", observers=[recorder])
        tried = [assigned(dispatcher.dispatch(ask("r"), 0.0))]
        for n in (1, 2):
            tried.append(assigned(dispatcher.redispatch("r", float(n))))
        assert sorted(tried) == ["a", "b", "c"]
        last = dispatcher.redispatch("r", 3.0)
        assert isinstance(last, Reject)
        assert last.reason == "all_backends_tried"
        assert counts(dispatcher) == {"arrived": 1, "failed": 1}
        assert loads(dispatcher) == {"a": 0, "b": 0, "c": 0}
        assert [(o.backend, o.status) for o in recorder.outcomes] == [
            (name, "failed") for name in tried
        ]

    def test_a_backend_that_comes_back_under_its_old_name_is_not_tried_again(self):
        dispatcher = make_dispatcher("a")
        dispatcher.dispatch(ask("r"), 0.0)
        dispatcher.remove_backend("a", 1.0)
        dispatcher.add_backend(spec("a"), 1.0)
        assert isinstance(dispatcher.redispatch("r", 2.0), Reject)

    def test_may_wait_and_still_knows_where_it_has_been(self):
        dispatcher = make_dispatcher("a", "b", policy=LimitPolicy(1))
        assert assigned(dispatcher.dispatch(ask("r"), 0.0)) == "a"
        assert assigned(dispatcher.dispatch(ask("s"), 0.0)) == "b"
        assert isinstance(dispatcher.redispatch("r", 1.0), Wait)
        assert dispatcher.poll(2.0) == [], "a is idle, and has failed this request"
        dispatcher.complete("s", 3.0, output_tokens=1)
        ((request, decision),) = dispatcher.poll(3.0)
        assert (request.request_id, assigned(decision)) == ("r", "b")

    def test_a_request_that_had_its_chance_and_timed_out_has_failed(self):
        dispatcher = make_dispatcher("a", "b", policy=LimitPolicy(1), queue_timeout_s=10.0)
        dispatcher.dispatch(ask("r"), 0.0)
        dispatcher.dispatch(ask("s"), 0.0)
        dispatcher.redispatch("r", 5.0)
        ((_, decision),) = dispatcher.poll(15.0)
        assert isinstance(decision, Reject)
        assert counts(dispatcher) == {"arrived": 2, "failed": 1, "in_flight": 1}

    def test_a_full_queue_ends_it(self):
        dispatcher = make_dispatcher("a", "b", policy=LimitPolicy(1), queue_size=0)
        dispatcher.dispatch(ask("r"), 0.0)
        dispatcher.dispatch(ask("s"), 0.0)
        decision = dispatcher.redispatch("r", 1.0)
        assert isinstance(decision, Reject)
        assert decision.reason == "queue_full"
        assert counts(dispatcher) == {"arrived": 2, "failed": 1, "in_flight": 1}


class TestContinuation:
    """The attempt broke after tokens that the client has: the rest is a longer prompt."""

    def test_the_tokens_so_far_are_prompt_for_the_next_and_answer_for_the_client(self):
        recorder = Recorder()
        dispatcher = make_dispatcher("a", "b", observers=[recorder])
        dispatcher.dispatch(ask("r", prompt_tokens=1000, max_tokens=300), 0.0)
        dispatcher.first_token("r", 2.0)
        assert assigned(dispatcher.redispatch("r", 10.0, output_tokens=80)) == "b"
        assert dispatcher.state.get("b").pending_prefill_tokens == 1080
        dispatcher.first_token("r", 11.0)
        dispatcher.complete("r", 31.0, output_tokens=21, prompt_tokens=1082)
        broken, whole = recorder.outcomes
        assert (broken.status, broken.output_tokens, broken.answer_tokens) == ("failed", 80, 80)
        assert (whole.prompt_tokens, whole.output_tokens, whole.carried_tokens) == (1082, 21, 80)
        assert (whole.question_tokens, whole.answer_tokens, whole.max_tokens) == (1002, 101, 300)
        assert (whole.dispatched_s, whole.first_token_s) == (10.0, 11.0), "its own, to learn from"
        assert (whole.ttft_s, whole.tpot_s) == (2.0, pytest.approx(29.0 / 100))
        assert counts(dispatcher) == {"arrived": 1, "completed": 1}
        assert loads(dispatcher) == {"a": 0, "b": 0}

    def test_it_keeps_to_backends_that_can(self):
        cannot = spec("b", labels={"continuation": "off"})
        dispatcher = make_dispatcher("a", cannot, "c")
        dispatcher.dispatch(ask("r"), 0.0)
        dispatcher.first_token("r", 1.0)
        assert assigned(dispatcher.redispatch("r", 2.0, output_tokens=5)) == "c"
        assert isinstance(dispatcher.redispatch("r", 3.0), Reject), "nor after a failure"
        assert counts(dispatcher) == {"arrived": 1, "failed": 1}

    def test_nothing_received_is_an_ordinary_retry(self):
        cannot = spec("b", labels={"continuation": "off"})
        dispatcher = make_dispatcher("a", cannot)
        request = ask("r", prompt_tokens=1000)
        dispatcher.dispatch(request, 0.0)
        assert assigned(dispatcher.redispatch("r", 2.0)) == "b"
        assert (request.prompt_tokens, request.carried_tokens) == (1000, 0)


class TestFleetChanges:
    def test_a_removed_backend_finishes_what_it_has(self):
        dispatcher = make_dispatcher("a", "b")
        assert assigned(dispatcher.dispatch(ask("r"), 0.0)) == "a"
        left = dispatcher.state.get("a")
        dispatcher.remove_backend("a", 1.0)
        assert assigned(dispatcher.dispatch(ask("s"), 1.0)) == "b"
        assert left.in_flight == 1
        dispatcher.first_token("r", 2.0)
        dispatcher.complete("r", 3.0, output_tokens=5)
        assert left.in_flight == 0
        assert counts(dispatcher) == {"arrived": 2, "completed": 1, "in_flight": 1}

    def test_a_new_backend_is_used_from_the_next_decision_on(self):
        dispatcher = make_dispatcher("a")
        dispatcher.dispatch(ask("r"), 0.0)
        dispatcher.add_backend(spec("b"), 1.0, capability=capability(SLOW))
        assert assigned(dispatcher.dispatch(ask("s"), 1.0)) == "b"
        assert dispatcher.state.get("b").cost == SLOW

    def test_a_drained_backend_gets_nothing_new(self):
        dispatcher = make_dispatcher("a", "b")
        dispatcher.drain("a", 0.0)
        assert [assigned(dispatcher.dispatch(ask(n), 0.0)) for n in "rs"] == ["b", "b"]

    def test_what_is_learned_reaches_the_backends(self):
        dispatcher = make_dispatcher("a", spec("t", gpu="t4"))
        dispatcher.scrape("a", EngineSignals(1.0, running=3), 1.0)
        dispatcher.correct("a", prefill=2.0, decode=1.0, now=1.0)
        dispatcher.set_prices({f"t4/vllm/{MODEL}": 0.5}, 1.0)
        dispatcher.set_health("t", healthy=False, now=1.0)
        a, t = dispatcher.state.backends
        assert a.signals == EngineSignals(1.0, running=3)
        assert a.correction == (2.0, 1.0)
        assert t.price == 0.5
        assert not t.usable


def test_a_policy_that_learns_is_told_after_the_other_observers():
    told: list[str] = []

    class Learning(LimitPolicy):
        def observe(self, outcome: object) -> None:
            told.append("policy")

    class Other:
        def observe(self, outcome: object) -> None:
            told.append("observer")

    dispatcher = make_dispatcher("a", policy=Learning(), observers=[Other()])
    dispatcher.dispatch(ask("r"), 0.0)
    dispatcher.complete("r", 1.0, output_tokens=1)
    assert told == ["observer", "policy"]


def test_a_prompt_too_long_is_rejected_or_by_an_estimate_left_to_the_engine():
    limits = {"a": capability(max_context_tokens=4_096)}
    strict = make_dispatcher("a", capabilities=limits)
    decision = strict.dispatch(ask("r", prompt_tokens=5_000), 0.0)
    assert isinstance(decision, Reject)
    assert decision.reason == "context_too_long"
    lenient = make_dispatcher("a", capabilities=limits, strict_context=False)
    assert assigned(lenient.dispatch(ask("r", prompt_tokens=5_000), 0.0)) == "a"


class TestBookedLater:
    def test_its_id_is_taken_all_the_same(self):
        dispatcher = make_dispatcher("a", "b")
        dispatcher.dispatch(ask("r"), 0.0, booked=False)
        with pytest.raises(BadInputError, match="'r' is taken"):
            dispatcher.dispatch(ask("r"), 0.0, booked=False)
        dispatcher.book()
        dispatcher.complete("r", 1.0, output_tokens=1)
        assert counts(dispatcher) == {"arrived": 1, "completed": 1}
        assert loads(dispatcher) == {"a": 0, "b": 0}

    def test_a_decision_that_comes_to_grief_is_not_booked_after_all(self, monkeypatch):
        dispatcher = make_dispatcher("a")
        decide = dispatcher._decide

        def grief(*args):
            decide(*args)
            raise RuntimeError("a defect of ours")

        monkeypatch.setattr(dispatcher, "_decide", grief)
        with pytest.raises(RuntimeError):
            dispatcher.dispatch(ask("r"), 0.0, booked=False)
        dispatcher.book()
        assert counts(dispatcher) == {"arrived": 1, "failed": 1}
        assert loads(dispatcher) == {"a": 0}

    def test_books_that_cannot_be_opened_are_closed(self, monkeypatch):
        dispatcher = make_dispatcher("a")
        monkeypatch.setattr(dispatcher, "_enter", lambda *_: 1 / 0)
        dispatcher.dispatch(ask("r"), 0.0, booked=False)
        with pytest.raises(ZeroDivisionError):
            dispatcher.book()
        assert counts(dispatcher) == {"arrived": 1, "failed": 1}

    def test_nor_is_anything_left_of_books_half_open(self, monkeypatch):
        dispatcher = make_dispatcher("a")
        monkeypatch.setattr(dispatcher, "_awaiting", SimpleNamespace(begun=lambda _: 1 / 0))
        dispatcher.dispatch(ask("r"), 0.0, booked=False)
        with pytest.raises(ZeroDivisionError):
            dispatcher.book()
        with pytest.raises(ZeroDivisionError):
            dispatcher.dispatch(ask("s"), 0.0)
        assert counts(dispatcher) == {"arrived": 2, "failed": 2}
        assert loads(dispatcher) == {"a": 0}
