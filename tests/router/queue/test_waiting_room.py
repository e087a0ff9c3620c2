from __future__ import annotations

import math

from router.domain.decision import Wait
from router.queue.waiting_room import WaitingRoom
from tests.fakes import ask

NOTHING: frozenset[str] = frozenset()


def room_of(*names: str, capacity: int = 10, timeout_s: float = 60.0) -> WaitingRoom:
    room = WaitingRoom(capacity, timeout_s)
    for at, name in enumerate(names):
        room.enter(ask(name), NOTHING, float(at))
    return room


def order(room: WaitingRoom) -> list[str]:
    return [entry.request.request_id for entry in room]


def test_first_in_first_out():
    assert order(room_of("a", "b", "c")) == ["a", "b", "c"]


def test_full_means_nobody_else_may_enter():
    assert not room_of("a", capacity=2).full
    assert room_of("a", "b", capacity=2).full
    assert WaitingRoom(0, 60.0).full


def test_who_leaves_is_gone_and_others_keep_their_places():
    room = room_of("a", "b", "c")
    entry = room.leave("b")
    assert entry is not None
    assert entry.request.request_id == "b"
    assert room.leave("b") is None
    assert order(room) == ["a", "c"]
    assert ("a" in room, "b" in room, len(room)) == (True, False, 2)


def test_the_deadline_counts_from_the_entrance_and_the_first_is_the_earliest():
    room = room_of("a", "b", timeout_s=60.0)
    assert [entry.deadline_s for entry in room] == [60.0, 61.0]
    assert room.next_deadline_s() == 60.0
    room.leave("a")
    assert room.next_deadline_s() == 61.0
    room.leave("b")
    assert room.next_deadline_s() == math.inf


def test_who_comes_back_queues_at_the_end_with_a_new_deadline():
    room = room_of("a", "b", timeout_s=60.0)
    room.leave("a")
    room.enter(ask("a"), frozenset({"t4-0"}), 30.0)
    assert order(room) == ["b", "a"]
    deadlines = [entry.deadline_s for entry in room]
    assert deadlines == sorted(deadlines) == [61.0, 90.0]


def test_entries_may_leave_while_the_room_is_walked_through():
    room = room_of("a", "b", "c")
    for entry in room:
        room.leave(entry.request.request_id)
    assert len(room) == 0


def test_answers_say_why_and_when_to_try_again():
    room = room_of("a", "b", timeout_s=60.0)
    busy = room.turn_away(ask("c"), Wait("saturated"))
    assert (busy.reason, busy.retry_after_s) == ("queue_full", 15)
    assert "2 requests wait already" in busy.message
    down = room.turn_away(ask("c"), Wait("no_healthy_backend"))
    assert (down.reason, down.retry_after_s) == ("no_healthy_backend", 15)
    assert "'llama-3.1-8b'" in down.message
    late = room.give_up(ask("a"))
    assert (late.reason, late.retry_after_s) == ("queue_timeout", 15)
    assert "within 60 s" in late.message
