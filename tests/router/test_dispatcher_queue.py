"""Late binding: requests wait in the router, bounded, first in first out, and never for ever."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from router.deciding import MOST_BEHIND
from router.dispatcher import Dispatcher
from router.domain.decision import Assign, Reject, Wait
from router.domain.errors import PollError
from router.domain.protocols import Hold, Taken
from router.domain.request import Request
from router.domain.state import BackendView
from router.queue.waiting_room import Waiting
from tests.fakes import LimitPolicy, ask, assigned, balance, capability, make_dispatcher, spec

SHORT_AND_LONG = {
    "short": capability(max_context_tokens=4_096),
    "long": capability(max_context_tokens=32_768),
}


def decided(dispatcher: Dispatcher, now: float) -> dict[str, str]:
    """What ``poll`` decides: backend or reason of rejection, by request, in order."""
    answers = {
        request.request_id: d.backend.name if isinstance(d, Assign) else d.reason
        for request, d in dispatcher.poll(now)
    }
    assert balance(dispatcher) == 0
    return answers


def test_waits_while_all_are_busy_and_goes_when_one_is_free():
    dispatcher = make_dispatcher("a", policy=LimitPolicy(1))
    dispatcher.dispatch(ask("r"), 0.0)
    assert dispatcher.dispatch(ask("s"), 1.0) == Wait("saturated")
    assert dispatcher.queued == 1
    assert decided(dispatcher, 2.0) == {}
    dispatcher.complete("r", 3.0, output_tokens=1)
    assert decided(dispatcher, 3.0) == {"s": "a"}
    assert (dispatcher.queued, dispatcher.in_flight) == (0, 1)


def test_first_in_first_out_and_nobody_behind_the_first_that_waits_is_asked_about():
    policy = LimitPolicy(1)
    dispatcher = make_dispatcher("a", policy=policy)
    for name in ("r", "s", "t", "u"):
        dispatcher.dispatch(ask(name), 0.0)
    dispatcher.complete("r", 1.0, output_tokens=1)
    policy.asked.clear()
    assert decided(dispatcher, 1.0) == {"s": "a"}
    assert policy.asked == ["s", "t"]


class TestNobodyOvertakes:
    """A backend that somebody waits for is not for those who came later."""

    def test_not_even_with_a_request_that_would_be_taken_at_once(self):
        policy = LimitPolicy(1)
        dispatcher = make_dispatcher("a", policy=policy)
        dispatcher.dispatch(ask("r"), 0.0)
        dispatcher.dispatch(ask("first"), 0.0)
        policy.limit = 2  # as when a backlog melts away with time: no event tells of it
        assert dispatcher.dispatch(ask("later"), 1.0) == Wait("saturated")
        assert dispatcher.next_poll_s() == 1.0, "but time has passed, so look at once"
        assert decided(dispatcher, 1.0) == {"first": "a"}
        assert dispatcher.next_poll_s() == 60.0 + 1.0

    def test_nor_one_that_may_go_elsewhere_is_held_up(self):
        dispatcher = make_dispatcher(
            "short", "long", policy=LimitPolicy(1), capabilities=SHORT_AND_LONG
        )
        dispatcher.dispatch(ask("r", prompt_tokens=5_000), 0.0)
        assert dispatcher.dispatch(ask("s", prompt_tokens=5_000), 0.0) == Wait("saturated")
        assert assigned(dispatcher.dispatch(ask("t"), 0.0)) == "short"

    def test_so_a_request_that_needs_more_than_others_gets_its_turn(self):
        class RoomPolicy(LimitPolicy):
            """Two short prompts at once, or one long."""

            def choose(
                self, request: Request, candidates: Sequence[BackendView], now: float
            ) -> BackendView | None:
                held = candidates[0].pending_prefill_tokens + request.prompt_tokens
                return candidates[0] if held <= 2_000 else None

        dispatcher = make_dispatcher("a", policy=RoomPolicy())
        for name, prompt in [("r", 1_000), ("s", 1_000), ("long", 2_000), ("t", 1_000)]:
            dispatcher.dispatch(ask(name, prompt_tokens=prompt), 0.0)
        dispatcher.complete("r", 1.0, output_tokens=1)
        assert decided(dispatcher, 1.0) == {}, "t would fit, and comes after long"
        assert dispatcher.dispatch(ask("u"), 1.5) == Wait("saturated")
        dispatcher.complete("s", 2.0, output_tokens=1)
        assert decided(dispatcher, 2.0) == {"long": "a"}

    def test_and_a_claim_ends_with_the_wait(self):
        dispatcher = make_dispatcher("a", policy=LimitPolicy(1))
        dispatcher.dispatch(ask("r"), 0.0)
        dispatcher.dispatch(ask("s"), 0.0)
        dispatcher.cancel("s", 1.0)
        dispatcher.complete("r", 1.0, output_tokens=1)
        assert assigned(dispatcher.dispatch(ask("t"), 1.0)) == "a"


def test_models_do_not_wait_for_each_other():
    policy = LimitPolicy(1)
    dispatcher = make_dispatcher("a", spec("q", model="qwen2.5-7b"), policy=policy)
    dispatcher.dispatch(ask("r"), 0.0)
    dispatcher.dispatch(ask("other", model="qwen2.5-7b"), 0.0)
    dispatcher.dispatch(ask("s"), 0.0)
    dispatcher.dispatch(ask("another", model="qwen2.5-7b"), 0.0)
    dispatcher.complete("other", 1.0, output_tokens=1)
    assert decided(dispatcher, 1.0) == {"another": "q"}


def test_a_long_prompt_holds_nobody_up_who_fits_elsewhere():
    policy = LimitPolicy(1)
    dispatcher = make_dispatcher("short", "long", policy=policy, capabilities=SHORT_AND_LONG)
    dispatcher.dispatch(ask("r", prompt_tokens=100), 0.0)
    dispatcher.dispatch(ask("s", prompt_tokens=100), 0.0)
    for name, prompt in [("long1", 5_000), ("long2", 9_000), ("t", 100), ("u", 100)]:
        assert dispatcher.dispatch(ask(name, prompt_tokens=prompt), 0.0) == Wait("saturated")
    dispatcher.complete("r", 1.0, output_tokens=1)
    policy.asked.clear()
    assert decided(dispatcher, 1.0) == {"t": "short"}
    # long2 may go only where long1 waits, so nobody is asked; u may go where t just went.
    assert policy.asked == ["long1", "t", "u"]


def test_a_long_prompt_waits_for_the_one_that_can_hold_it_and_others_pass():
    dispatcher = make_dispatcher("short", "long", capabilities=SHORT_AND_LONG)
    dispatcher.set_health("long", healthy=False, now=0.0)
    long = dispatcher.dispatch(ask("long1", prompt_tokens=5_000), 0.0)
    assert long == Wait("no_healthy_backend")
    assert assigned(dispatcher.dispatch(ask("r"), 0.0)) == "short"
    assert decided(dispatcher, 1.0) == {}
    dispatcher.set_health("long", healthy=True, now=2.0)
    assert decided(dispatcher, 2.0) == {"long1": "long"}


def test_a_retry_that_may_not_go_back_holds_nobody_up_who_may():
    dispatcher = make_dispatcher("a", "b", policy=LimitPolicy(1))
    dispatcher.dispatch(ask("r"), 0.0)  # a
    dispatcher.dispatch(ask("s"), 0.0)  # b
    assert dispatcher.redispatch("r", 1.0) == Wait("saturated")
    assert assigned(dispatcher.dispatch(ask("t"), 1.0)) == "a"
    dispatcher.dispatch(ask("u"), 1.0)
    dispatcher.complete("t", 2.0, output_tokens=1)
    assert decided(dispatcher, 2.0) == {"u": "a"}


def test_the_queue_is_bounded():
    dispatcher = make_dispatcher("a", policy=LimitPolicy(1), queue_size=1, queue_timeout_s=8.0)
    dispatcher.dispatch(ask("r"), 0.0)
    assert dispatcher.dispatch(ask("s"), 0.0) == Wait("saturated")
    full = dispatcher.dispatch(ask("t"), 0.0)
    assert isinstance(full, Reject)
    assert (full.reason, full.retry_after_s) == ("queue_full", 2)
    assert (dispatcher.queued, dispatcher.rejected) == (1, 1)


def test_no_queue_and_nobody_well_says_so():
    dispatcher = make_dispatcher("a", queue_size=0)
    dispatcher.set_health("a", healthy=False, now=0.0)
    decision = dispatcher.dispatch(ask("r"), 0.0)
    assert isinstance(decision, Reject)
    assert decision.reason == "no_healthy_backend"


def test_patience_ends_at_the_deadline_and_not_before():
    dispatcher = make_dispatcher("a", policy=LimitPolicy(1), queue_timeout_s=10.0)
    dispatcher.dispatch(ask("r"), 0.0)
    dispatcher.dispatch(ask("s"), 1.0)
    dispatcher.dispatch(ask("t"), 2.0)
    assert decided(dispatcher, 2.0) == {}
    assert dispatcher.next_poll_s() == 11.0
    assert decided(dispatcher, math.nextafter(11.0, 0.0)) == {}
    assert decided(dispatcher, 11.0) == {"s": "queue_timeout"}
    assert dispatcher.next_poll_s() == 12.0
    assert decided(dispatcher, 12.0) == {"t": "queue_timeout"}
    assert dispatcher.next_poll_s() is None
    assert dispatcher.rejected == 2


def test_capacity_that_frees_up_at_the_deadline_is_still_used():
    dispatcher = make_dispatcher("a", policy=LimitPolicy(1), queue_timeout_s=10.0)
    dispatcher.dispatch(ask("r"), 0.0)
    dispatcher.dispatch(ask("s"), 0.0)
    dispatcher.complete("r", 10.0, output_tokens=1)
    assert decided(dispatcher, 10.0) == {"s": "a"}


def test_who_leaves_the_queue_is_cancelled_and_never_decided():
    dispatcher = make_dispatcher("a", policy=LimitPolicy(1))
    dispatcher.dispatch(ask("r"), 0.0)
    dispatcher.dispatch(ask("s"), 0.0)
    dispatcher.cancel("s", 1.0)
    dispatcher.complete("r", 2.0, output_tokens=1)
    assert decided(dispatcher, 2.0) == {}
    assert (dispatcher.cancelled, dispatcher.queued) == (1, 0)


def test_when_the_last_backend_of_a_model_leaves_those_who_wait_are_told():
    dispatcher = make_dispatcher("a", spec("q", model="qwen2.5-7b"), policy=LimitPolicy(1))
    dispatcher.dispatch(ask("r"), 0.0)
    dispatcher.dispatch(ask("s"), 0.0)
    dispatcher.remove_backend("a", 1.0)
    assert decided(dispatcher, 1.0) == {"s": "unknown_model"}


def test_a_wait_ends_with_the_time_it_took_in_the_books():
    dispatcher = make_dispatcher("a", policy=LimitPolicy(1))
    dispatcher.dispatch(ask("r"), 0.0)
    dispatcher.dispatch(ask("s", arrival_s=1.0), 1.0)
    dispatcher.complete("r", 4.0, output_tokens=1)
    dispatcher.poll(4.0)
    dispatcher.first_token("s", 5.0)
    told = dispatcher.complete("s", 6.0, output_tokens=2)
    assert (told.dispatched_s, told.ttft_s) == (4.0, 4.0)


class Picky:
    """Long prompts are for ``fast`` alone, one at a time; the others take the first free."""

    def choose(
        self, request: Request, candidates: Sequence[BackendView], now: float
    ) -> BackendView | Hold | None:
        fast = next((v for v in candidates if v.spec.name == "fast"), None)
        if request.prompt_tokens > 1_000:
            if fast is None:
                return None
            return Hold(fast) if fast.in_flight else fast
        return next((v for v in candidates if not v.in_flight), None)


class TestWaitingForOneBackend:
    """``Hold``: a request waits for one backend and leaves the others to those behind it."""

    def dispatcher(self) -> Dispatcher:
        dispatcher = make_dispatcher("fast", "slow", policy=Picky())
        assigned(dispatcher.dispatch(ask("first"), 0.0))
        assert dispatcher.dispatch(ask("long", prompt_tokens=5_000), 0.0) == Wait("saturated")
        return dispatcher

    def test_the_others_are_free_for_those_behind_it(self):
        dispatcher = self.dispatcher()
        assert assigned(dispatcher.dispatch(ask("short"), 0.0)) == "slow"

    def test_the_one_it_waits_for_is_its_own_when_it_is_free(self):
        dispatcher = self.dispatcher()
        assigned(dispatcher.dispatch(ask("short"), 0.0))
        dispatcher.dispatch(ask("later"), 0.0)
        dispatcher.complete("first", 1.0, output_tokens=1)
        assert decided(dispatcher, 1.0) == {"long": "fast"}
        dispatcher.complete("long", 2.0, output_tokens=1)
        assert decided(dispatcher, 2.0) == {"later": "fast"}


class Patient:
    """Everybody wants ``fast``, one at a time, and waits for it behind 10 s of others at most."""

    def __init__(self, prefill_s: float = 4.0) -> None:
        self.prefill_s = prefill_s
        self.told: list[tuple[float, int]] = []

    def choose(
        self, request: Request, candidates: Sequence[BackendView], now: float
    ) -> BackendView | Hold | None:
        return self.choose_or_queue(request, candidates, (), now)

    def choose_or_queue(
        self,
        request: Request,
        candidates: Sequence[BackendView],
        taken: Sequence[Taken],
        now: float,
    ) -> BackendView | Hold | None:
        self.told += [(queue.prefill_s, queue.prompt_tokens) for queue in taken]
        fast = next((v for v in candidates if v.spec.name == "fast"), None)
        if fast is not None:
            return Hold(fast, self.prefill_s) if fast.in_flight else fast
        for queue in taken:
            if queue.prefill_s < 10.0:
                return Hold(queue.backend, self.prefill_s)
        return candidates[-1]


class TestWaitingBehindOthers:
    """A policy that says how long a prompt keeps a backend may queue the next one behind it."""

    def dispatcher(self, policy: Patient) -> Dispatcher:
        dispatcher = make_dispatcher("fast", "slow", policy=policy, queue_size=1_000)
        assigned(dispatcher.dispatch(ask("first"), 0.0))
        return dispatcher

    def test_it_is_told_what_waits_there_already(self):
        policy = Patient()
        dispatcher = self.dispatcher(policy)
        for name in ("a", "b", "c"):
            assert dispatcher.dispatch(ask(name, prompt_tokens=500), 0.0) == Wait("saturated")
        assert policy.told == [(4.0, 500), (8.0, 1_000)]
        assert assigned(dispatcher.dispatch(ask("d"), 0.0)) == "slow"

    def test_they_go_in_the_order_they_came(self):
        dispatcher = self.dispatcher(Patient())
        for name in ("a", "b"):
            dispatcher.dispatch(ask(name), 0.0)
        dispatcher.complete("first", 1.0, output_tokens=1)
        assert decided(dispatcher, 1.0) == {"a": "fast"}
        dispatcher.complete("a", 2.0, output_tokens=1)
        assert decided(dispatcher, 2.0) == {"b": "fast"}

    def test_nobody_waits_behind_one_whose_policy_does_not_say_how_long(self):
        dispatcher = self.dispatcher(Patient(math.inf))
        dispatcher.dispatch(ask("a"), 0.0)
        assert assigned(dispatcher.dispatch(ask("b"), 0.0)) == "slow"

    def test_so_many_and_no_more_for_all_are_asked_about_whenever_something_ends(self):
        dispatcher = self.dispatcher(Patient(0.0))
        for n in range(MOST_BEHIND + 10):
            dispatcher.dispatch(ask(f"r{n}"), 0.0)
        assert dispatcher.queued == 1 + MOST_BEHIND
        dispatcher.complete("first", 1.0, output_tokens=1)
        assert decided(dispatcher, 1.0) == {"r0": "fast"}
        assert dispatcher.queued == MOST_BEHIND


class Grieves(LimitPolicy):
    """Raises over one request, once it is asked about it again."""

    def choose(
        self, request: Request, candidates: Sequence[BackendView], now: float
    ) -> BackendView | Hold | None:
        """As ever, but for ``s`` after it has waited."""
        if request.request_id == "s" and now > request.arrival_s:
            raise RuntimeError("a defect of ours")
        return super().choose(request, candidates, now)


def test_an_error_of_ours_with_one_says_who_was_decided_before():
    dispatcher = make_dispatcher("a", "b", policy=Grieves(1))
    for name in ("q", "r", "first", "s", "last"):
        dispatcher.dispatch(ask(name), 0.0)
    for done in ("q", "r"):
        dispatcher.complete(done, 1.0, output_tokens=1)
    with pytest.raises(PollError) as told:
        dispatcher.poll(1.0)
    assert isinstance(told.value.__cause__, RuntimeError)
    assert [r.request_id for r, _ in told.value.decided] == ["first"]
    assert told.value.request.request_id == "s"
    assert dispatcher.queued == 2, "whoever it was stays until he is ended"
    dispatcher.cancel("s", 1.0)
    assert decided(dispatcher, 1.0) == {"last": "b"}


def test_who_is_nowhere_after_an_error_of_ours_has_failed(monkeypatch: pytest.MonkeyPatch):
    dispatcher = make_dispatcher("a", policy=LimitPolicy(1))
    dispatcher.dispatch(ask("r"), 0.0)
    dispatcher.dispatch(ask("s"), 0.0)

    def drops(entry: Waiting, *_: object) -> None:
        dispatcher._waiting.leave(entry.request.request_id)
        raise RuntimeError("a defect of ours")

    monkeypatch.setattr(dispatcher, "_reconsider", drops)
    with pytest.raises(PollError):
        dispatcher.poll(1.0)
    assert (dispatcher.failed, balance(dispatcher)) == (1, 0)
