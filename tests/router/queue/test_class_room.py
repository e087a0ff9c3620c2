"""Order between classes, fairness between tenants, ageing: figures from scheduling theory."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from router.domain.slo import Slo
from router.queue.class_room import ClassRoom, Entry
from tests.fakes import ask

CHAT, BULK = Slo("interactive", ttft_s=2.0), Slo("bulk")


def entry(
    name: str,
    *,
    slo: Slo = BULK,
    tenant: str = "",
    arrival_s: float = 0.0,
    latest_start_s: float | None = None,
    work_s: float = 1.0,
    deadline_s: float = math.inf,
) -> Entry:
    request = ask(name, slo_class=slo.name, tenant=tenant, arrival_s=arrival_s)
    urgent = latest_start_s is not None
    latest = arrival_s if latest_start_s is None else latest_start_s
    return Entry(request, frozenset(), deadline_s, slo, urgent, latest, work_s)


def drain(room: ClassRoom, now: float = 0.0, limit: int = 10_000) -> list[Entry]:
    """Send one after the other, as if one server took them."""
    served = []
    while len(room) and len(served) < limit:
        chosen = room.turns(now).next()
        assert chosen is not None
        room.leave(chosen.request.request_id, sent=True)
        room.paid(chosen, now)
        served.append(chosen)
    return served


def names(entries: list[Entry]) -> list[str]:
    return [e.request.request_id for e in entries]


def test_between_classes_the_earliest_latest_start_goes_first_and_the_untargeted_last():
    room = ClassRoom(10, {})
    room.enter(entry("bulk"))
    room.enter(entry("patient", slo=Slo("throughput", ttft_s=10.0), latest_start_s=9.0))
    room.enter(entry("chat", slo=CHAT, latest_start_s=1.5))
    room.enter(entry("late-chat", slo=CHAT, latest_start_s=9.5))
    assert names(drain(room)) == ["chat", "patient", "late-chat", "bulk"]


def test_tenants_share_a_class_equally_whoever_floods_it():
    room = ClassRoom(1000, {})
    for i in range(100):
        room.enter(entry(f"flood-{i}", tenant="flood"))
    for i in range(10):
        room.enter(entry(f"light-{i}", tenant="light"))
    first = drain(room, limit=20)
    assert Counter(e.request.tenant for e in first) == {"flood": 10, "light": 10}


def test_who_is_taken_back_waits_behind_nobody_who_came_after_the_queue_was_empty():
    room = ClassRoom(10, {})
    for n in range(5):
        room.enter(entry(f"r{n}"))
    *_, last = drain(room)
    room.enter(entry("newcomer"))
    room.enter(last)
    assert names(drain(room)) == ["r4", "newcomer"]


def test_weights_are_shares_of_work_not_of_requests():
    room = ClassRoom(1000, {"gold": 3.0})
    for i in range(100):
        room.enter(entry(f"g{i}", tenant="gold", work_s=2.0))
        room.enter(entry(f"s{i}", tenant="small", work_s=0.5))
    work: Counter[str] = Counter()
    for served in drain(room, limit=80):
        work[served.request.tenant] += served.work_s
    assert work["gold"] / work["small"] == pytest.approx(3.0, rel=0.06)


def test_a_tenant_that_was_idle_gets_no_credit_for_it():
    room = ClassRoom(1000, {})
    for i in range(20):
        room.enter(entry(f"a{i}", tenant="a"))
    drain(room, limit=10)
    for i in range(10):
        room.enter(entry(f"b{i}", tenant="b"))
    assert Counter(e.request.tenant for e in drain(room, limit=10)) == {"a": 5, "b": 5}


class TestAgeing:
    """Whoever waited long without a target gets a share, and no more than the share."""

    def contest(self, share: float) -> Counter[str]:
        room = ClassRoom(10_000, {}, aged_after_s=60.0, aged_share=share)
        for i in range(1000):
            room.enter(entry(f"chat-{i}", slo=CHAT, arrival_s=99.0, latest_start_s=101.0))
            room.enter(entry(f"bulk-{i}", arrival_s=0.0))
        return Counter(e.request.slo_class for e in drain(room, now=100.0, limit=500))

    def test_it_is_the_share_that_was_set(self):
        served = self.contest(0.1)
        assert served["bulk"] == pytest.approx(50, abs=2)

    def test_without_one_the_untargeted_wait_for_ever(self):
        assert self.contest(0.0)["bulk"] == 0

    def test_the_young_wait_their_turn(self):
        room = ClassRoom(10, {}, aged_after_s=60.0, aged_share=0.5)
        room.credit_s = 1.0
        room.enter(entry("bulk", arrival_s=50.0))
        room.enter(entry("chat", slo=CHAT, arrival_s=99.0, latest_start_s=101.0))
        assert names(drain(room, now=100.0)) == ["chat", "bulk"]


def test_work_ahead_is_what_fair_queueing_serves_first():
    room = ClassRoom(1000, {})
    for i in range(50):
        room.enter(entry(f"flood-{i}", tenant="flood"))
    lane = room.lanes["bulk", "llama-3.1-8b"]
    assert lane.ahead_s("light", 2.0, {}) == 2.0, "as much of the flood as of its own"
    assert lane.ahead_s("flood", 2.0, {}) == 50.0, "all of its own flood"
    assert lane.ahead_s("light", 2.0, {"light": 4.0}) == 0.5


def test_deadlines_come_in_order_and_only_for_those_still_here():
    room = ClassRoom(10, {})
    for name, deadline in (("c", 3.0), ("a", 1.0), ("b", 2.0)):
        room.enter(entry(name, deadline_s=deadline))
    room.leave("a")
    assert room.next_deadline_s() == 2.0
    assert names(room.expired(2.5)) == ["b"]
    assert room.next_deadline_s() == 3.0
    room.leave("b")
    room.leave("c")
    assert room.next_deadline_s() == math.inf


def test_one_that_came_back_expires_once_and_keeps_its_place():
    room = ClassRoom(10, {})
    back = entry("back", deadline_s=3.0)
    room.enter(back)
    tag = back.tag
    room.leave("back", sent=True)
    room.enter(entry("later"))
    room.enter(back)
    assert back.tag == tag
    assert room.turns(0.0).next() is back
    assert names(room.expired(3.0)) == ["back"]


def test_an_urgent_request_enters_a_full_room_and_the_last_of_the_others_has_to_go():
    room = ClassRoom(2, {})
    room.enter(entry("first"))
    room.enter(entry("second"))
    assert room.full
    assert room.surplus() == []
    room.enter(entry("chat", slo=CHAT, latest_start_s=1.0))
    assert names(room.surplus()) == ["second"]


def test_names_that_clients_invent_are_not_kept():
    room = ClassRoom(10_000, {})
    for i in range(3_000):
        room.enter(entry(f"r{i}", tenant=f"tenant-{i}"))
        if i >= 5:
            room.leave(f"r{i - 5}", sent=True)
    lane = room.lanes["bulk", "llama-3.1-8b"]
    assert len(lane._finish) <= 2 * (5 + 256)
    for i in range(2_995, 3_000):
        room.leave(f"r{i}")
    assert not room.lanes


def test_credit_of_the_aged_is_bounded_both_ways():
    """A tenth of 30 engine-seconds: else a long calm would be followed by a long unfairness."""
    room = ClassRoom(10, {}, aged_after_s=60.0, aged_share=0.1)
    young, old = entry("young", work_s=100.0), entry("old", work_s=100.0, arrival_s=-60.0)
    for _ in range(3):
        room.paid(young, 0.0)
    assert room.credit_s == pytest.approx(3.0)
    room.paid(old, 0.0)
    assert room.credit_s == pytest.approx(-3.0)


def test_tenants_that_have_nothing_here_are_forgotten_when_there_are_many():
    room = ClassRoom(10_000, {})
    room.enter(entry("stays", tenant="stays"))
    sizes = []
    for n in range(1200):
        room.enter(entry(f"r{n}", tenant=f"t{n}"))
        room.leave(f"r{n}", sent=False)
        sizes.append(len(room.lanes["bulk", entry("x").request.model]._finish))
    assert max(sizes) <= 2 * (1 + 256) + 1
    assert sizes[400] == 402, "and none before"


def test_one_that_must_wait_lets_the_next_of_its_lane_try_up_to_eight():
    room = ClassRoom(20, {})
    for n in range(10):
        room.enter(entry(f"r{n}"))
    turns, asked = room.turns(0.0), []
    while (one := turns.next()) is not None:
        asked.append(one.request.request_id)
        turns.stays(one)
    assert asked == [f"r{n}" for n in range(8)]
