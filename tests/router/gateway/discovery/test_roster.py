"""Whole fleets in, the least difference out, and nobody dropped who still has work."""

from __future__ import annotations

import logging

import pytest

from router.domain.errors import UnknownNameError
from router.gateway.discovery.roster import in_flight_of
from router.gateway.discovery.seam import Seen
from tests.fakes import spec
from tests.router.gateway.discovery.fakes import FakeBooks, entry, roster_over, seen


def test_the_difference_of_two_fleets_is_applied_and_nothing_else() -> None:
    books, now = FakeBooks(), [0.0]
    roster = roster_over(books, now)
    assert str(roster.put("dns", seen("a", "b"))) == "+a +b"
    assert not roster.put("dns", seen("b", "a")), "order means nothing"
    changed = Seen([entry("a", gpu="h100"), entry("c")])
    assert str(roster.put("dns", changed)) == "+c ~a -b"
    assert books.calls == ["add a", "add b", "remove a", "add a", "add c", "drain b"]


def test_one_that_leaves_is_forgotten_when_it_is_idle() -> None:
    books, now = FakeBooks(), [0.0]
    roster = roster_over(books, now)
    roster.put("dns", seen("a", "b"))
    busy = books.state.get("b")
    busy.in_flight = 2
    in_flight = in_flight_of(books.state.get)
    roster.put("dns", seen("a"))
    roster.release(in_flight)
    assert books.names == ["a", "b"]
    assert not busy.usable
    busy.in_flight = 0
    roster.release(in_flight)
    assert books.names == ["a"]


def test_one_that_does_not_finish_is_forgotten_at_the_deadline(
    caplog: pytest.LogCaptureFixture,
) -> None:
    books, now = FakeBooks(), [0.0]
    roster = roster_over(books, now, drain_s=10.0)
    roster.put("dns", seen("a"))
    books.state.get("a").in_flight = 1
    roster.put("dns", seen())
    now[0] = 9.9
    roster.release(in_flight_of(books.state.get))
    assert books.names == ["a"]
    now[0] = 10.0
    roster.release(in_flight_of(books.state.get))
    assert books.names == []
    assert "a: 1 requests outlast its drain deadline" in caplog.text


def test_one_that_comes_back_while_it_drains_goes_on_with_its_counts() -> None:
    books, now = FakeBooks(), [0.0]
    roster = roster_over(books, now)
    roster.put("dns", seen("a"))
    state = books.state.get("a")
    state.in_flight = 3
    roster.put("dns", seen())
    assert str(roster.put("dns", seen("a"))) == "^a"
    assert books.state.get("a") is state
    assert state.usable
    roster.release(in_flight_of(books.state.get))
    assert books.names == ["a"]


def test_sources_do_not_touch_each_others_backends(caplog: pytest.LogCaptureFixture) -> None:
    books, now = FakeBooks(), [0.0]
    roster = roster_over(books, now)
    roster.put("one", seen("a"))
    assert roster.put("two", seen("a", "b")).refused == (
        "a: the source one has a backend of this name",
    )
    roster.put("two", seen())
    assert roster.source_of("a") == "one"
    assert "left out a" in caplog.text


def test_an_entry_that_cannot_be_is_left_out_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    books, now = FakeBooks(), [0.0]
    roster = roster_over(books, now)
    fleet = Seen([entry("a"), entry("tiny", gpu="t4"), entry("odd", url="ftp://x")])
    for _ in range(3):
        roster.put("k8s", fleet)
    assert books.names == ["a"]
    assert caplog.text.count("left out tiny") == 1
    assert "does not fit" in caplog.text
    assert "'ftp://x' is not of the form" in caplog.text


def test_by_hand() -> None:
    """One that is dismissed stays away until its source has dropped it."""
    books, now = FakeBooks(), [0.0]
    roster = roster_over(books, now)
    roster.put("k8s", seen("a", "b"))
    roster.add(spec("mine", url="http://m:1"))
    assert roster.source_of("mine") == "rest"
    roster.dismiss("a")
    roster.put("k8s", seen("a", "b"))
    assert books.names == ["b", "mine"]
    roster.put("k8s", seen("b"))
    roster.put("k8s", seen("a", "b"))
    assert books.names == ["b", "mine", "a"]
    with pytest.raises(UnknownNameError):
        roster.dismiss("nobody")


def test_one_that_sleeps_by_plan_may_leave_its_source() -> None:
    """The planner's placement takes a sleeping engine out of the books by itself."""
    books, now = FakeBooks(), [0.0]
    roster = roster_over(books, now)
    roster.put("dns", seen("a", "b"))
    books.remove_backend("b")
    assert str(roster.put("dns", seen("a"))) == "-b"
    assert books.names == ["a"]
    roster.put("dns", seen("a", "b"))
    assert books.names == ["a", "b"]
