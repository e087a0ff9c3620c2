"""Service classes at the dispatcher: who goes where, who waits, who is sent away, who is recalled.

Backends do 10,000 prompt tokens a second and 10 ms an iteration, so a prompt of 10,000 tokens is a
second of backlog and every figure can be worked out on paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pytest

from router.class_dispatcher import ClassDispatcher
from router.domain.decision import Assign, Decision, Reject, Wait
from router.domain.errors import PollError
from router.domain.protocols import Policy
from router.domain.request import LengthForecast
from router.domain.slo import Slo
from router.fleet_state.capability import Capability
from router.perf.length import ConstantLengthPredictor
from router.queue.class_room import Entry
from router.queue.desk import ClassRules, Desk
from tests.fakes import LimitPolicy, ask, assigned, balance, capability, fleet_state, outcome

SLOS = {
    "interactive": Slo("interactive", ttft_s=2.0, tpot_s=0.1),
    "throughput": Slo("throughput", ttft_s=10.0, tpot_s=0.25),
    "bulk": Slo("bulk"),
}
ROOMY = capability(max_context_tokens=200_000, kv_capacity_tokens=10_000_000)


def serving(
    *backends: str,
    policy: Policy | None = None,
    slos: Mapping[str, Slo] | None = None,
    capacity: int = 100,
    capabilities: Mapping[str, Capability] | None = None,
    **rules: Any,
) -> ClassDispatcher:
    known = capabilities or dict.fromkeys(backends, ROOMY)
    dispatcher = ClassDispatcher(
        fleet_state(*backends, capabilities=known),
        policy or LimitPolicy(10_000),
        ConstantLengthPredictor(LengthForecast(100.0, 200.0)),
    )
    rules = {"margin": 1.0} | rules
    return dispatcher.serving(Desk(slos or SLOS, ClassRules(**rules), capacity))


def answers(dispatcher: ClassDispatcher, now: float) -> dict[str, str]:
    found = {
        request.request_id: d.backend.name if isinstance(d, Assign) else d.reason
        for request, d in dispatcher.poll(now)
    }
    assert balance(dispatcher) == 0
    return found


def rejected(decision: Decision) -> Reject:
    assert isinstance(decision, Reject), decision
    return decision


def test_an_idle_fleet_serves_everybody_at_once():
    dispatcher = serving("a")
    for n, slo_class in enumerate(SLOS):
        assert assigned(dispatcher.dispatch(ask(f"r{n}", slo_class=slo_class), 0.0)) == "a"
    assert balance(dispatcher) == 0


def test_bulk_waits_where_its_prompt_would_make_interactive_requests_late():
    dispatcher = serving("a")
    dispatcher.dispatch(ask("chat", slo_class="interactive"), 0.0)
    # Half of the 2 s may be backlog: 0.1 s is there, so 12,000 tokens are too many.
    big = ask("bulk", slo_class="bulk", prompt_tokens=12_000)
    assert dispatcher.dispatch(big, 0.0) == Wait("saturated")
    dispatcher.first_token("chat", 0.2)
    dispatcher.complete("chat", 1.0, output_tokens=50)
    assert answers(dispatcher, 1.0) == {"bulk": "a"}, "and goes once the backend is idle"


def test_without_interactive_traffic_bulk_holds_nothing_back():
    dispatcher = serving("a")
    for n in range(20):
        bulk = ask(f"b{n}", slo_class="bulk", prompt_tokens=12_000)
        assert assigned(dispatcher.dispatch(bulk, 0.0)) == "a"


def test_of_one_class_the_first_holds_up_nobody_who_needs_less():
    """Behind 1.6 s of prompts 4,000 tokens are too late for 2 s, and 1,000 are not."""
    dispatcher = serving("a")
    for n in range(2):
        dispatcher.dispatch(ask(f"before{n}", prompt_tokens=8_000), 0.0)
    assert dispatcher.dispatch(ask("long", prompt_tokens=4_000), 0.0) == Wait("saturated")
    assert dispatcher.dispatch(ask("short"), 0.0) == Wait("saturated"), "nobody overtakes at once"
    assert answers(dispatcher, 0.0) == {"short": "a"}


def test_the_aged_wait_for_one_backend_and_leave_the_others_to_the_rest():
    """It fits nowhere yet; the backend with most of its KV free is kept for it, and only that."""
    roomy = dict.fromkeys(
        ("a", "b"), capability(max_context_tokens=200_000, kv_capacity_tokens=100_000)
    )
    dispatcher = serving("a", "b", capabilities=roomy, aged_after_s=10.0)
    held = {}
    for name, prompt in (("x", 60_000), ("y", 80_000)):
        held[name] = assigned(
            dispatcher.dispatch(ask(name, slo_class="bulk", prompt_tokens=prompt), 0.0)
        )
        dispatcher.first_token(name, 9.0)
    assert held["x"] != held["y"]
    old = ask("old", slo_class="bulk", prompt_tokens=90_000)
    assert dispatcher.dispatch(old, 0.0) == Wait("saturated")
    young = ask("young", slo_class="bulk", prompt_tokens=5_000, arrival_s=20.0)
    assert dispatcher.dispatch(young, 20.0) == Wait("saturated"), "behind its own class"
    dispatcher.desk.room.credit_s = 1.0
    assert answers(dispatcher, 20.0) == {"young": held["y"]}


class TestAdmission:
    """Rejects early, and says honestly when to come back."""

    def full(self, **rules: Any) -> ClassDispatcher:
        """One backend with 1.6 s of interactive prompts, none of which will end."""
        dispatcher = serving("a", **rules)
        for n in range(2):
            request = ask(f"r{n}", slo_class="interactive", prompt_tokens=8_000)
            assert isinstance(dispatcher.dispatch(request, 0.0), Assign)
        return dispatcher

    def test_waits_while_the_queue_can_drain_in_time(self):
        dispatcher = self.full()
        assert dispatcher.dispatch(ask("s", prompt_tokens=4_000), 0.0) == Wait("saturated")

    def test_rejects_once_it_cannot_and_the_remedy_is_when_it_will(self):
        dispatcher = self.full()
        told = None
        for n in range(100):
            decision = dispatcher.dispatch(ask(f"s{n}"), 0.0)
            if isinstance(decision, Reject):
                told = decision
                break
        assert told is not None
        assert told.reason == "slo_unattainable"
        assert told.retry_after_s is not None
        assert told.retry_after_s >= 1.0
        assert "Try again in" in told.message
        queued = dispatcher.queued
        room = dispatcher.desk.room
        work_s = sum(entry.work_s for entry in room)
        # One average backend drains a second of work a second: what waits takes the 1.9 s that a
        # request of this class may wait, to within one request.
        assert work_s == pytest.approx(
            1.885, abs=room.lanes["interactive", ask().model].work_s / queued
        )

    def test_retry_after_grows_with_the_queue_of_those_who_may_wait(self):
        dispatcher = self.full(max_wait_s={"bulk": 5.0})
        waits = []
        for n in range(200):
            bulk = ask(f"b{n}", slo_class="bulk", prompt_tokens=8_000)
            decision = dispatcher.dispatch(bulk, 0.0)
            if isinstance(decision, Reject):
                assert decision.reason == "wait_too_long"
                waits.append(decision.retry_after_s)
        assert waits
        assert len(set(waits)) == 1, "nothing was added, so nothing changed"

    def test_who_waited_in_vain_is_told_when_its_time_is_up_and_not_later(self):
        dispatcher = self.full()
        dispatcher.dispatch(ask("s", prompt_tokens=4_000), 0.0)
        due = dispatcher.next_poll_s()
        assert due is not None
        assert 1.5 < due < 1.6
        dispatcher.set_health("a", healthy=False, now=0.1)
        assert answers(dispatcher, due - 0.01) == {}
        assert answers(dispatcher, due) == {"s": "no_healthy_backend"}

    def test_bulk_outlasts_it(self):
        dispatcher = self.full()
        assert dispatcher.dispatch(ask("b", slo_class="bulk"), 0.0) == Wait("saturated")
        assert answers(dispatcher, 100.0) == {"b": "a"}, "aged, and the backlog has melted"

    def test_a_light_tenant_is_let_in_where_a_flooding_one_is_not(self):
        dispatcher = self.full()
        decisions = [dispatcher.dispatch(ask(f"s{n}", tenant="flood"), 0.0) for n in range(60)]
        assert isinstance(decisions[-1], Reject)
        assert dispatcher.dispatch(ask("t", tenant="light"), 0.0) == Wait("saturated")

    def test_in_a_full_room_the_urgent_take_the_place_of_bulk(self):
        dispatcher = self.full()
        dispatcher.desk.room._capacity = 2
        for n in range(2):
            dispatcher.dispatch(ask(f"b{n}", slo_class="bulk", prompt_tokens=8_000), 0.0)
        turned_away = dispatcher.dispatch(ask("b2", slo_class="bulk", prompt_tokens=8_000), 0.0)
        assert rejected(turned_away).reason == "queue_full"
        assert dispatcher.dispatch(ask("s", prompt_tokens=4_000), 0.0) == Wait("saturated")
        assert answers(dispatcher, 0.0) == {"b1": "shed"}
        assert dispatcher.desk.events["shed", "bulk"] == 1


class TestPreemption:
    """Before the first byte only, for a tighter class only, and not again and again."""

    def loaded(self, **rules: Any) -> ClassDispatcher:
        """A backend that works on a bulk prompt of 3 s; nobody urgent was there before."""
        dispatcher = serving("a", **rules)
        bulk = ask("bulk", slo_class="bulk", prompt_tokens=30_000)
        assert isinstance(dispatcher.dispatch(bulk, 0.0), Assign)
        return dispatcher

    def test_takes_the_bulk_request_back_and_serves_it_later(self):
        dispatcher = self.loaded()
        decision = dispatcher.dispatch(ask("chat", arrival_s=0.5), 0.5)
        assert isinstance(decision, Assign)
        assert decision.recalled == ("bulk",)
        assert (dispatcher.in_flight, dispatcher.queued) == (1, 1)
        assert balance(dispatcher) == 0
        dispatcher.first_token("chat", 0.7)
        dispatcher.complete("chat", 2.0, output_tokens=100)
        assert answers(dispatcher, 5.4) == {}, "the engine may not have let go of it yet"
        assert answers(dispatcher, 5.6) == {"bulk": "a"}

    def test_to_another_backend_if_there_is_one(self):
        dispatcher = serving("a", "b")
        dispatcher.set_health("b", healthy=False, now=0.0)
        dispatcher.dispatch(ask("bulk", slo_class="bulk", prompt_tokens=30_000), 0.0)
        dispatcher.dispatch(ask("chat", arrival_s=0.5), 0.5)
        dispatcher.set_health("b", healthy=True, now=0.6)
        assert answers(dispatcher, 0.6) == {"bulk": "b"}

    def test_when_that_one_fails_it_is_still_too_early_to_go_back(self):
        dispatcher = serving("a", "b")
        dispatcher.set_health("b", healthy=False, now=0.0)
        dispatcher.dispatch(ask("bulk", slo_class="bulk", prompt_tokens=30_000), 0.0)
        dispatcher.dispatch(ask("chat", arrival_s=0.5), 0.5)
        dispatcher.set_health("b", healthy=True, now=0.6)
        assert answers(dispatcher, 0.6) == {"bulk": "b"}
        dispatcher.first_token("chat", 0.7)
        dispatcher.complete("chat", 2.0, output_tokens=100)
        assert dispatcher.redispatch("bulk", 4.0) == Wait("saturated")
        assert answers(dispatcher, 5.4) == {}
        assert answers(dispatcher, 5.6) == {"bulk": "a"}

    @pytest.mark.parametrize(("prompt", "fits"), [(93_900, True), (93_901, False)])
    def test_where_the_memory_it_gives_back_makes_room(self, prompt: int, fits: bool):
        """95,000 tokens of KV may be used: 1,050 are, and 30,050 by the bulk request."""
        roomy = {"a": capability(max_context_tokens=200_000, kv_capacity_tokens=100_000)}
        targets = {**SLOS, "interactive": Slo("interactive", ttft_s=20.0)}
        dispatcher = serving("a", capabilities=roomy, slos=targets)
        dispatcher.dispatch(ask("first"), 0.0)
        dispatcher.first_token("first", 0.2)
        dispatcher.dispatch(ask("bulk", slo_class="bulk", prompt_tokens=30_000), 0.2)
        decision = dispatcher.dispatch(ask("chat", prompt_tokens=prompt), 0.2)
        assert isinstance(decision, Assign) is fits, "half of its answer of 100 counts, too"

    def test_never_after_the_first_token(self):
        dispatcher = self.loaded()
        dispatcher.dispatch(ask("second", slo_class="bulk", prompt_tokens=30_000), 0.0)
        dispatcher.first_token("bulk", 0.1)
        dispatcher.first_token("second", 0.2)
        hasty = ask("chat", prompt_tokens=16_000, arrival_s=0.5)
        assert not isinstance(dispatcher.dispatch(hasty, 0.5), Assign)
        assert dispatcher.in_flight == 2

    def test_never_one_of_its_own_class(self):
        dispatcher = serving("a")
        for n in range(2):
            dispatcher.dispatch(ask(f"r{n}", prompt_tokens=8_000), 0.0)
        assert dispatcher.dispatch(ask("s", prompt_tokens=4_000), 0.0) == Wait("saturated")

    def test_not_where_it_is_switched_off(self):
        dispatcher = self.loaded(preempt=False)
        assert dispatcher.dispatch(ask("chat", arrival_s=0.5), 0.5) == Wait("saturated")

    def test_at_most_twice_the_same(self):
        dispatcher = serving("a", "b", "c")
        for name in ("b", "c"):
            dispatcher.set_health(name, healthy=False, now=0.0)
        dispatcher.dispatch(ask("bulk", slo_class="bulk", prompt_tokens=30_000), 0.0)
        for n, (ill, well) in enumerate((("a", "b"), ("b", "c"))):
            now = 0.1 * (n + 1)
            decision = dispatcher.dispatch(ask(f"chat{n}", arrival_s=now), now)
            assert isinstance(decision, Assign)
            assert decision.recalled == ("bulk",)
            dispatcher.set_health(ill, healthy=False, now=now)
            dispatcher.set_health(well, healthy=True, now=now)
            assert answers(dispatcher, now) == {"bulk": well}
        assert not isinstance(dispatcher.dispatch(ask("chat9", arrival_s=0.4), 0.4), Assign)


class TestTargets:
    """What is asked decides, and what makes no sense is served safely and counted."""

    def test_a_request_may_ask_for_more_than_its_class(self):
        strict = Slo("interactive", ttft_s=0.05)
        dispatcher = serving("a")
        request = ask("r", prompt_tokens=100, slo=strict)
        assert isinstance(dispatcher.dispatch(request, 0.0), Assign)
        other = ask("s", prompt_tokens=100, slo=strict)
        dispatcher.dispatch(ask("long", prompt_tokens=8_000), 0.0)
        decision = dispatcher.dispatch(other, 0.0)
        assert not isinstance(decision, Assign), "0.9 s of backlog and 0.05 s of patience"

    def test_a_target_that_no_backend_could_keep_is_served_without_one_and_counted(self):
        dispatcher = serving("a")
        request = ask("r", slo=Slo("interactive", ttft_s=0.001))
        assert isinstance(dispatcher.dispatch(request, 0.0), Assign)
        assert dispatcher.desk.events["slo_infeasible", "interactive"] == 1

    def test_an_unknown_class_is_served_as_the_default_and_counted(self):
        dispatcher = serving("a")
        assert isinstance(dispatcher.dispatch(ask("r", slo_class="gold"), 0.0), Assign)
        assert dispatcher.desk.events["unknown_class", "interactive"] == 1

    def test_a_model_may_have_targets_of_its_own(self):
        model = ask().model
        slos = {**SLOS, "interactive": Slo("interactive", 2.0, models={model: Slo("x", 0.5)})}
        dispatcher = serving("a", slos=slos)
        dispatcher.dispatch(ask("long", prompt_tokens=4_000), 0.0)
        assert dispatcher.dispatch(ask("r", prompt_tokens=2_000), 0.0) == Wait("saturated")
        assert dispatcher.next_poll_s() == pytest.approx(0.5 - 0.2 - 0.01 * (1 + 2_000 / 2_048))

    @pytest.mark.parametrize("prompt", [0, 1])
    def test_an_empty_prompt_is_only_a_short_one(self, prompt: int):
        dispatcher = serving("a")
        request = ask("r", prompt_tokens=prompt)
        assert isinstance(dispatcher.dispatch(request, 0.0), Assign)


class TestCaution:
    """Backends are filled less where tokens came too slowly for those who have a target."""

    def share_after(self, **fields: Any) -> float:
        """What may be used after an answer of 101 tokens that took ten seconds and a half."""
        dispatcher = serving("a")
        dispatcher.dispatch(ask("first"), 0.0)  # so that its class is in use
        answer = {"finished_s": 11.5, "output_tokens": 101, "predicted_output_tokens": 100.0}
        dispatcher.desk.observe(outcome("a", **answer | fields))
        return dispatcher.desk.limits(ask().model, 2.0).share

    def test_a_target_missed_is_learned_from(self):
        assert self.share_after() < 1.0
        assert self.share_after(finished_s=10.9) == 1.0

    def test_only_the_tightest_class_counts(self):
        assert self.share_after(finished_s=99.0, slo_class="throughput") == 1.0
        assert self.share_after(finished_s=99.0, slo_class="bulk") == 1.0
        assert self.share_after(finished_s=99.0, slo_class="never-heard-of") == 1.0

    def test_what_a_request_asks_for_itself_says_nothing_of_its_class(self):
        assert self.share_after(slo=Slo("interactive", ttft_s=2.0, tpot_s=0.1)) == 1.0

    def test_a_target_that_nobody_could_keep_is_nobodys_fault(self):
        """Ten milliseconds an iteration, and one more for every thousand tokens of context."""
        assert self.share_after(prompt_tokens=89_000) < 1.0
        assert self.share_after(prompt_tokens=91_000) == 1.0

    def test_an_answer_that_another_backend_went_on_with_was_late_for_that_reason(self):
        assert self.share_after(carried_tokens=10) == 1.0

    @pytest.mark.parametrize("status", ["failed", "cancelled"])
    def test_an_answer_that_was_broken_off_says_nothing(self, status: str):
        assert self.share_after(status=status) == 1.0

    def test_an_answer_of_one_token_has_no_pace(self):
        assert self.share_after(output_tokens=1) == 1.0

    def test_bulk_waits_where_it_went_before(self):
        """With 40 under way a token takes 61 ms, 68 with their prompts; bulk may bring that to 80,
        and half of the way there from the 11 of an idle backend once much was missed."""
        dispatcher = serving("a", policy=LimitPolicy(100))
        for n in range(40):
            dispatcher.dispatch(ask(f"r{n}", arrival_s=float(n)), float(n))
            dispatcher.first_token(f"r{n}", n + 0.2)
        assert assigned(dispatcher.dispatch(ask("b0", slo_class="bulk"), 40.0)) == "a"
        dispatcher.cancel("b0", 40.1)
        for _ in range(20):
            dispatcher.desk.observe(outcome("a", finished_s=99.0))
        assert dispatcher.desk.limits(ask().model, 42.0).share < 0.6
        assert dispatcher.dispatch(ask("b1", slo_class="bulk"), 42.0) == Wait("saturated")
        assert balance(dispatcher) == 0

    def test_what_the_dispatcher_completes_is_learned_from(self):
        dispatcher = serving("a")
        dispatcher.dispatch(ask("r"), 0.0)
        dispatcher.first_token("r", 0.5)
        dispatcher.complete("r", 11.0, output_tokens=101)
        assert dispatcher.desk.limits(ask().model, 11.0).share < 1.0

    def test_other_targets_begin_anew(self):
        dispatcher = serving("a")
        dispatcher.dispatch(ask("first"), 0.0)
        dispatcher.desk.observe(outcome("a", finished_s=99.0))
        dispatcher.desk.retarget({**SLOS, "interactive": Slo("interactive", 2.0, tpot_s=0.3)})
        assert dispatcher.desk.limits(ask().model, 21.0).share == 1.0


def test_a_policy_that_comes_with_other_classes_brings_their_targets():
    dispatcher = serving("a")
    targets = {"interactive": asdict(Slo("interactive", ttft_s=0.3))}
    dispatcher.use_policy(LimitPolicy(1), {"slos": targets}, 1.0)
    assert dispatcher.desk.slo_of(ask("r")).ttft_s == 0.3
    dispatcher.use_policy(LimitPolicy(1), {}, 2.0)
    assert dispatcher.desk.slo_of(ask("r")).ttft_s == 0.3, "a recipe without classes changes none"


def test_who_leaves_the_queue_is_gone():
    dispatcher = serving("a", policy=LimitPolicy(1))
    dispatcher.dispatch(ask("r"), 0.0)
    dispatcher.dispatch(ask("s"), 0.0)
    dispatcher.cancel("s", 0.1)
    assert dispatcher.queued == 0
    assert dispatcher.next_poll_s() is None
    assert balance(dispatcher) == 0


def test_when_the_policy_holds_back_until_time_is_up_it_is_sent_all_the_same():
    policy = LimitPolicy(1)
    dispatcher = serving("a", policy=policy, margin=0.8)
    dispatcher.dispatch(ask("r", prompt_tokens=10), 0.0)
    dispatcher.first_token("r", 0.01)
    dispatcher.dispatch(ask("s"), 0.0)
    due = dispatcher.next_poll_s()
    assert due is not None
    assert answers(dispatcher, due - 0.01) == {}
    assert answers(dispatcher, due) == {"s": "a"}


def test_what_is_sent_while_others_wait_earns_the_aged_their_share():
    dispatcher = serving("a", policy=LimitPolicy(1), aged_after_s=10.0)
    for name, slo_class in (("r", "interactive"), ("b1", "bulk"), ("b2", "bulk")):
        dispatcher.dispatch(ask(name, slo_class=slo_class), 0.0)
    dispatcher.dispatch(ask("chat", slo_class="interactive"), 0.5)
    dispatcher.complete("r", 1.0, output_tokens=1)
    assert answers(dispatcher, 1.0) == {"chat": "a"}
    dispatcher.complete("chat", 11.0, output_tokens=1)
    dispatcher.dispatch(ask("late", slo_class="interactive"), 11.0)
    assert answers(dispatcher, 11.0) == {"b1": "a"}, "before one with a target"
    assert dispatcher.desk.events["aged", "bulk"] == 1


def test_an_error_of_ours_with_one_says_who_was_decided_before(monkeypatch: pytest.MonkeyPatch):
    dispatcher = serving("a", policy=LimitPolicy(1))
    for name, slo_class in (("r", "interactive"), ("bulk", "bulk"), ("chat", "interactive")):
        dispatcher.dispatch(ask(name, slo_class=slo_class), 0.0)
    dispatcher.complete("r", 1.0, output_tokens=1)
    again = dispatcher._again_by_class

    def grieves(entry: Entry, now: float) -> Assign | Reject | None:
        if entry.request.request_id == "bulk":
            raise RuntimeError("a defect of ours")
        return again(entry, now)

    monkeypatch.setattr(dispatcher, "_again_by_class", grieves)
    with pytest.raises(PollError) as told:
        dispatcher.poll(1.0)
    assert [r.request_id for r, _ in told.value.decided] == ["chat"]
    assert told.value.request.request_id == "bulk"
    dispatcher.cancel("bulk", 1.0)
    assert answers(dispatcher, 1.0) == {}


def test_of_a_backend_that_left_nothing_is_kept():
    """Names flap, and each coming is a new backend: for months, in one process."""
    dispatcher = serving("a", "b")
    for n in range(21):
        dispatcher.dispatch(ask(f"r{n}", slo_class="interactive"), 0.0)
    gate, leaving = dispatcher.desk.gate, dispatcher.state.get("b")
    assert leaving.index in gate._busy
    assert leaving.index in gate._seen
    dispatcher.remove_backend("b", 0.0)
    assert set(gate._busy) | set(gate._seen) == {dispatcher.state.get("a").index}
