"""What the desk makes of a request: its deadline, its cost, its wait, and the answer to it.

On one backend of ``FAST`` a request of 1,000 tokens and an answer of 100 begins 0.1149 s after it
was sent at best and takes 0.01125 s a token; its work is 0.1 s of prefill and 100 * 0.001875 s of
decoding among fifteen others: 0.2875 s. The backend does a second of work a second.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from router.domain.slo import Slo
from router.queue.class_room import Entry
from router.queue.desk import ClassRules, Desk
from tests.fakes import MODEL, ask, view

TTFT_S, TPOT_S, WORK_S = 0.1 + (1 + 1000 / 2048) * 0.01, 0.01125, 0.2875
SLOS = {
    "interactive": Slo("interactive", ttft_s=2.0, tpot_s=0.1),
    "throughput": Slo("throughput", ttft_s=10.0, tpot_s=0.25),
    "bulk": Slo("bulk"),
    "job": Slo("job", e2e_s=3.0),
    "steady": Slo("steady", tpot_s=0.05),
    "prompt": Slo("prompt", ttft_s=0.5),
}
FLEET = [view("a")]


def desk(capacity: int = 100, **rules: Any) -> Desk:
    return Desk(SLOS, ClassRules(**rules), capacity)


def enter(at: Desk, name: str, slo_class: str, now: float = 0.0, **fields: Any) -> Entry:
    """Somebody waits from now on."""
    entry = look(at, name, slo_class, now, **fields)
    at.enter(entry, now)
    return entry


def look(at: Desk, name: str, slo_class: str, now: float = 0.0, **fields: Any) -> Entry:
    asked = {"slo_class": slo_class, "arrival_s": now, "forecast": 100.0, **fields}
    return at.entry(ask(name, **asked), frozenset(), FLEET, now)


class TestWhatARequestIs:
    def test_its_work_and_the_moment_at_which_it_must_be_sent(self):
        entry = look(desk(), "r", "interactive", 5.0)
        assert entry.work_s == pytest.approx(WORK_S)
        assert entry.urgent
        assert entry.latest_start_s == pytest.approx(5.0 + 0.8 * 2.0 - TTFT_S)
        assert entry.deadline_s == entry.latest_start_s

    def test_a_target_for_the_end_counts_all_of_the_answer(self):
        entry = look(desk(), "r", "job")
        assert entry.latest_start_s == pytest.approx(0.8 * 3.0 - TTFT_S - 100 * TPOT_S)

    @pytest.mark.parametrize(("ttft_s", "e2e_s"), [(0.5, 100.0), (100.0, 3.0)])
    def test_of_two_targets_the_tighter_one(self, ttft_s: float, e2e_s: float):
        entry = look(desk(), "r", "interactive", slo=Slo("x", ttft_s=ttft_s, e2e_s=e2e_s))
        one = 0.8 * ttft_s - TTFT_S
        other = 0.8 * e2e_s - TTFT_S - 100 * TPOT_S
        assert entry.latest_start_s == pytest.approx(min(one, other))

    def test_of_an_answer_at_least_a_token_is_expected(self):
        entry = look(desk(), "r", "bulk", forecast=0.0)
        assert entry.work_s == pytest.approx(0.1 + 0.000825 + 1e-6 * 1000.5)
        entry = look(desk(), "r", "job", forecast=0.0)
        assert entry.latest_start_s == pytest.approx(0.8 * 3.0 - TTFT_S - 0.0102 - 1e-6 * 1000.5)

    def test_without_a_target_it_waits_as_long_as_its_class_may(self):
        at = desk(max_wait_s={"bulk": 7.0}, patience_s=20.0)
        assert look(at, "r", "bulk", 3.0).deadline_s == 10.0
        assert look(at, "s", "steady", 3.0).deadline_s == 23.0
        assert not look(at, "s", "steady", 3.0).urgent

    def test_a_pace_that_nobody_can_keep_makes_it_one_without_a_target(self):
        at = desk()
        assert look(at, "r", "interactive", slo=Slo("x", 2.0, TPOT_S * 1.001)).urgent
        assert not look(at, "r", "interactive", slo=Slo("x", 2.0, TPOT_S * 0.999)).urgent
        assert at.events["slo_infeasible", "interactive"] == 1

    def test_while_nobody_is_usable_it_waits_as_long_as_its_class_may(self):
        entry = desk(patience_s=20.0).entry(ask("r", arrival_s=3.0), frozenset(), [], 4.0)
        assert (entry.deadline_s, entry.urgent) == (23.0, False)


class TestLimits:
    """The tightest targets of those who asked in the last minute."""

    @pytest.mark.parametrize(
        ("slo_class", "tpot_s", "ttft_s"),
        [
            ("interactive", 0.1, 2.0),
            ("steady", 0.05, math.inf),
            ("prompt", math.inf, 0.5),
            ("bulk", math.inf, math.inf),
        ],
    )
    def test_any_target_counts(self, slo_class: str, tpot_s: float, ttft_s: float):
        at = desk()
        look(at, "r", slo_class)
        limits = at.limits(MODEL, 0.0)
        assert (limits.tpot_s, limits.ttft_s) == (tpot_s, ttft_s)

    def test_the_tightest_of_several_and_of_this_model_only(self):
        at = desk()
        for name in ("throughput", "interactive"):
            look(at, name, name)
        look(at, "x", "prompt", model="other")
        limits = at.limits(MODEL, 0.0)
        assert (limits.tpot_s, limits.ttft_s) == (0.1, 2.0)

    def test_for_a_minute(self):
        at = desk()
        look(at, "r", "interactive")
        assert at.limits(MODEL, 59.9).tpot_s == 0.1
        assert at.limits(MODEL, 61.0).tpot_s == math.inf

    def test_one_who_asks_counts_at_once(self):
        at = desk()
        look(at, "r", "throughput")
        assert at.limits(MODEL, 0.0).ttft_s == 10.0
        look(at, "s", "interactive")
        assert at.limits(MODEL, 0.0).ttft_s == 2.0


class TestHowLongItWouldWait:
    def wait_s(self, at: Desk, slo_class: str, now: float = 0.0, **fields: Any) -> float:
        return at._wait_s(look(at, "new", slo_class, now, **fields), FLEET, now)

    def test_half_of_its_own_work_where_nobody_waits(self):
        assert self.wait_s(desk(), "interactive") == pytest.approx(WORK_S / 2)

    def test_behind_its_own_class_and_those_who_must_go_earlier(self):
        at = desk()
        enter(at, "r0", "interactive")
        enter(at, "r1", "interactive")
        assert self.wait_s(at, "interactive") == pytest.approx(2.5 * WORK_S)
        assert self.wait_s(at, "throughput") == pytest.approx(2.5 * WORK_S)
        assert self.wait_s(at, "bulk") == pytest.approx(2.5 * WORK_S)

    def test_before_those_who_may_go_later(self):
        at = desk()
        enter(at, "r0", "throughput")
        enter(at, "r1", "bulk")
        assert self.wait_s(at, "interactive") == pytest.approx(0.5 * WORK_S)
        assert self.wait_s(at, "throughput") == pytest.approx(1.5 * WORK_S)
        assert self.wait_s(at, "bulk") == pytest.approx(2.5 * WORK_S)
        late = self.wait_s(at, "interactive", 9.0)
        assert late > self.wait_s(at, "interactive"), "by now throughput is more urgent"

    def test_those_without_a_target_in_the_order_in_which_they_came(self):
        at = desk()
        enter(at, "r0", "bulk", 0.0)
        steady = look(at, "s", "steady", 1.0)
        assert at._wait_s(steady, FLEET, 1.0) == pytest.approx(1.5 * WORK_S / 1.0, rel=0.2)
        before = look(at, "s", "steady", -1.0)
        assert at._wait_s(before, FLEET, 1.0) < at._wait_s(steady, FLEET, 1.0)

    def test_what_tighter_classes_take_is_not_for_it(self):
        """Somebody waited for ten seconds, in which 0.2875 s of interactive work was sent: with
        the prior of five seconds, 5.2875 s in 15, of which interactive took 0.2875 s."""
        at = desk()
        enter(at, "b", "bulk", 0.0)
        at.sent(look(at, "i", "interactive", 10.0), FLEET[0], 10.0)
        rate, taken = (5.0 + WORK_S) / 15.0, WORK_S / 15.0
        own = 0.5 * WORK_S
        assert self.wait_s(at, "interactive", 10.0) == pytest.approx(own / rate)
        assert self.wait_s(at, "throughput", 10.0) == pytest.approx(own / (rate - taken))
        expected = (WORK_S + own) / (rate - taken)
        assert self.wait_s(at, "bulk", 10.0) == pytest.approx(expected)
        # Ten seconds on in which nothing was sent, and a third of what was known faded.
        fade = math.exp(-1 / 3)
        rate = (5.0 + WORK_S * fade) / (5.0 + 10.0 * fade + 10.0)
        assert self.wait_s(at, "interactive", 20.0) == pytest.approx(own / rate)

    def test_one_who_waited_alone_shows_how_fast_it_goes_as_well(self):
        """A hundred times one waits for a second and is sent, so 0.2875 s of work is done in one;
        with what is kept of half a minute and the prior of five seconds, 5 + 30 of them."""
        at = desk()
        for n in range(100):
            entry = enter(at, f"r{n}", "bulk", float(n))
            at.room.leave(f"r{n}", sent=True)
            at.sent(entry, FLEET[0], n + 1.0)
        rate = (5.0 + 30.0 * WORK_S) / 35.0
        assert self.wait_s(at, "bulk", 100.0) == pytest.approx(0.5 * WORK_S / rate, rel=0.02)

    def test_what_looser_classes_take_it_could_have(self):
        at = desk()
        enter(at, "b", "bulk", 0.0)
        at.sent(look(at, "t", "throughput", 10.0), FLEET[0], 10.0)
        rate = (5.0 + WORK_S) / 15.0
        assert self.wait_s(at, "interactive", 10.0) == pytest.approx(0.5 * WORK_S / rate)

    @pytest.mark.parametrize(("slo_class", "floor"), [("throughput", 0.02), ("bulk", 0.1)])
    def test_something_is_always_left_for_it(self, slo_class: str, floor: float):
        at = desk()
        enter(at, "b", "steady", 0.0, forecast=1.0)
        for n in range(1_000):
            at.sent(look(at, f"i{n}", "interactive", 100.0), FLEET[0], 100.0)
        sent_s = 1_000 * WORK_S
        rate = (5.0 + sent_s) / (5.0 + 100.0)
        ahead = 0.0 if slo_class == "throughput" else 0.1 + 0.000825 + 1e-6 * 1000.5
        wait_s = self.wait_s(at, slo_class, 100.0)
        assert wait_s == pytest.approx((ahead + 0.5 * WORK_S) / (floor * rate), rel=1e-3)

    def test_for_nobody_it_does_not_wait(self):
        at = desk()
        assert at._wait_s(look(at, "r", "bulk"), [], 0.0) == 0.0


class TestWhereItMayGo:
    def test_of_very_many_backends_every_kth_is_looked_at(self):
        many = [view(f"b{n}", n) for n in range(257)]
        at = desk()
        entry = look(at, "r", "interactive")
        assert len(at.open_to(entry, many[:256], 0.0)) == 256
        first = at.open_to(entry, many, 0.0)
        assert [b.index for b in first] == list(range(1, 257, 2))
        assert [b.index for b in at.open_to(entry, many, 0.0)] == list(range(0, 257, 2))
        assert len(at.open_to(entry, many, 0.0, last=True)) == 257

    @pytest.mark.parametrize(
        ("slo_class", "ttft_s", "tpot_s", "opens"),
        [
            ("interactive", 1.59, 0.079, True),
            ("interactive", 1.61, 0.079, False),
            ("interactive", 1.59, 0.081, False),
            ("bulk", 99.0, 0.079, True),
            ("bulk", 0.0, 0.081, False),
            ("job", 2.31, 0.001, False),
            ("job", 2.29, 0.001, True),
        ],
    )
    def test_a_pair_that_keeps_its_targets_and_the_tightest_pace(
        self, slo_class: str, ttft_s: float, tpot_s: float, opens: bool
    ):
        at = desk()
        look(at, "i", "interactive")
        shared = SimpleNamespace(ttft_s=ttft_s, tpot_s=tpot_s)
        assert at.pair_opens(look(at, "r", slo_class), shared, 0.0) is opens

    def test_what_it_has_waited_counts_for_a_pair_too(self):
        at = desk()
        entry = look(at, "r", "interactive")
        assert at.pair_opens(entry, SimpleNamespace(ttft_s=1.0, tpot_s=0.01), 0.59)
        assert not at.pair_opens(entry, SimpleNamespace(ttft_s=1.0, tpot_s=0.01), 0.61)


class TestTurnedAway:
    def test_at_once_when_it_would_wait_longer_than_it_may(self):
        at = desk(max_wait_s={"bulk": 3.0})
        for n in range(9):
            enter(at, f"b{n}", "bulk")
        assert at.admit(look(at, "ok", "bulk"), FLEET, 0.0) is None
        enter(at, "b9", "bulk")  # 10.5 times 0.2875 s are 3.02 s
        told = at.admit(look(at, "no", "bulk"), FLEET, 0.0)
        assert told is not None
        assert (told.reason, told.retry_after_s) == ("wait_too_long", 1.0)
        assert "would have to wait about 3.02 s, and its class may wait 3 s" in told.message
        for n in range(10, 30):
            enter(at, f"b{n}", "bulk")
        told = at.admit(look(at, "no", "bulk"), FLEET, 0.0)
        assert told is not None
        assert told.retry_after_s == math.ceil(30.5 * WORK_S - 3.0)

    def test_never_told_to_come_back_next_week(self):
        at = desk(max_wait_s={"bulk": 3.0})
        for n in range(50):
            enter(at, f"b{n}", "bulk", prompt_tokens=1_000_000)
        told = at.admit(look(at, "no", "bulk"), FLEET, 0.0)
        assert told is not None
        assert told.retry_after_s == 600.0

    def test_a_full_room_is_only_for_the_urgent(self):
        at = desk(capacity=1)
        enter(at, "b", "bulk")
        told = at.admit(look(at, "no", "bulk"), FLEET, 0.0)
        assert told is not None
        assert told.reason == "queue_full"
        assert at.admit(look(at, "yes", "interactive"), FLEET, 0.0) is None

    def test_who_has_waited_in_vain(self):
        at = desk(max_wait_s={"bulk": 3.0})
        bulk, chat = look(at, "b", "bulk"), look(at, "i", "interactive")
        assert at.give_up(bulk, FLEET, 3.0).reason == "queue_timeout"
        assert "has waited 3 s" in at.give_up(bulk, FLEET, 3.0).message
        assert at.give_up(chat, FLEET, 2.0).reason == "slo_unattainable"
        nobody = at.give_up(bulk, [], 3.0)
        assert (nobody.reason, nobody.retry_after_s) == ("no_healthy_backend", 1.0)
        assert "within 3 s" in nobody.message

    def test_who_gave_its_place(self):
        at = desk()
        assert at.shed(look(at, "b", "bulk"), FLEET, 0.0).reason == "shed"
        assert at.events["shed", "bulk"] == 1


class TestSent:
    def test_the_aged_pay_and_are_counted_while_somebody_waits(self):
        at = desk(aged_after_s=10.0, aged_share=0.1)
        old = look(at, "old", "bulk", 0.0)
        enter(at, "b", "bulk", 20.0)
        at.sent(look(at, "i", "interactive", 20.0), FLEET[0], 20.0)
        assert at.room.credit_s == pytest.approx(0.1 * WORK_S)
        at.sent(old, FLEET[0], 20.0)
        assert at.events["aged", "bulk"] == 1
        assert at.room.credit_s == pytest.approx(0.2 * WORK_S - WORK_S)

    def test_where_nobody_waits_nobody_pays(self):
        at = desk()
        at.sent(look(at, "i", "interactive"), FLEET[0], 0.0)
        assert at.room.credit_s == 0.0
