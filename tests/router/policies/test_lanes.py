"""Of many backends, who is worth scoring, and who is worth waiting for."""

from __future__ import annotations

from typing import Any

import pytest

from router.domain.protocols import Taken
from router.domain.request import Request
from router.fleet_state.backend import BackendState
from router.policies.ask import Weights
from router.policies.lanes import MANY_HOLDERS, Lanes
from router.policies.prefix_index import PrefixIndex
from router.policies.tail_scale import TailScale
from tests.fakes import SLOW, ask, spec, views
from tests.router.policies.picking import crowd

BUSY: dict[str, Any] = {
    "in_flight": 1,
    "prefilling": 1,
    "pending_prefill_tokens": 8_000,
    "prefill_since_s": 0.0,
}
FULL: dict[str, Any] = {
    "in_flight": 4,
    "decoding": 4,
    "context_tokens": 89_900.0,
    "pending_output_tokens": 400.0,
}


def book(index: PrefixIndex | None = None) -> Lanes:
    weights = Weights(0.3, 1.0, 0.0, overshoot=1.0)
    return Lanes(index or PrefixIndex(), TailScale(), weights, 0.3)


def listed(
    lanes: Lanes, fleet: list[BackendState], request: Request, now: float = 0.0
) -> tuple[set[str], dict[str, str]]:
    """Names that can begin soon; and by reason, whom to wait for."""
    soon, later = lanes.shortlist(fleet, request, now)
    return {lane.name for lane in soon}, {why: lane.name for (why, _), (lane, _) in later.items()}


def test_the_two_best_of_each_group_are_scored():
    fleet = views(a=crowd(3), b=crowd(1), c=crowd(2), d=crowd(4))
    assert listed(book(), fleet, ask()) == ({"b", "c"}, {})
    fleet = views(a=crowd(1), b=crowd(2), c=crowd(3))
    assert listed(book(), fleet, ask()) == ({"a", "b"}, {})
    fleet = views(a=crowd(3), b=crowd(2), c=crowd(1))
    assert listed(book(), fleet, ask()) == ({"b", "c"}, {})


def test_the_first_of_a_group_is_compared_once_there_is_somebody_to_compare_it_with():
    """Alone it had no key, and none would look like the best of all keys."""
    fleet = views(a=crowd(9), b=crowd(1), c=crowd(2))
    lanes = book()
    assert listed(lanes, fleet[:1], ask()) == ({"a"}, {})
    assert listed(lanes, fleet, ask()) == ({"b", "c"}, {})


def test_every_group_has_its_own_best():
    fleet = views(a=crowd(1), b=crowd(2), t=crowd(5))
    fleet[2].spec = spec("t", gpu="t4")
    assert listed(book(), fleet, ask()) == ({"a", "b", "t"}, {})


def test_who_is_busy_is_waited_for_the_soonest_first():
    later = {**BUSY, "pending_prefill_tokens": 9_000}
    fleet = views(x=later, a=BUSY, b=later, free=crowd(1))
    assert listed(book(), fleet, ask()) == ({"free"}, {"busy": "a"})


def test_a_backlog_that_ended_long_ago_is_waited_for_too():
    """Something unseen holds it up; in the pain it would look free."""
    fleet = views(a={**BUSY, "pending_prefill_tokens": 1_000}, b=crowd(1))
    assert listed(book(), fleet, ask(), 0.2) == ({"a", "b"}, {})
    assert listed(book(), fleet, ask(), 0.45) == ({"b"}, {"busy": "a"})


def test_who_has_no_room_is_waited_for_where_somebody_can_begin():
    """Where nobody can, whose prompts end first decides alone."""
    sooner = {**FULL, "pending_output_tokens": 40.0}
    fleet = views(a=FULL, b=sooner, free=crowd(1))
    assert listed(book(), fleet, ask()) == ({"free"}, {"full": "b"})
    assert listed(book(), fleet[:2], ask()) == (set(), {})
    assert listed(book(), fleet, ask(prompt_tokens=50)) != ({"free"}, {"full": "b"})


def request(*hashes: int) -> Request:
    return ask(prefix_hashes=hashes, prefix_block_tokens=16)


def holding(**names: tuple[int, ...]) -> PrefixIndex:
    index = PrefixIndex()
    for name, hashes in names.items():
        index.insert(name, hashes, 16, 100_000)
    return index


def test_holders_of_the_prefix_are_scored_however_crowded():
    fleet = views(a=crowd(1), b=crowd(2), c=crowd(9))
    assert listed(book(holding(c=(1, 2))), fleet, request(1, 2)) == ({"a", "b", "c"}, {})
    assert listed(book(holding(c=(3,))), fleet, request(1, 2)) == ({"a", "b"}, {})


@pytest.mark.parametrize("many", [MANY_HOLDERS, MANY_HOLDERS + 1])
def test_of_many_holders_the_two_best(many: int):
    fleet = views(**{f"h{n}": crowd(n + 1) for n in range(many)})
    index = holding(**{f"h{n}": (1,) for n in range(many)})
    names, _ = listed(book(index), fleet, request(1))
    assert names == ({f"h{n}" for n in range(many)} if many <= MANY_HOLDERS else {"h0", "h1"})


def test_of_many_holders_those_that_hold_more_are_scored_too():
    fleet = views(**{f"h{n}": crowd(n + 1) for n in range(12)})
    shorter = {f"h{n}": (1,) for n in range(11)}
    names, _ = listed(book(holding(**shorter, h11=(1, 2))), fleet, request(1, 2))
    assert names == {"h0", "h1", "h11"}


def test_whom_others_wait_for_can_be_waited_for_behind_them():
    fleet = views(a=crowd(1), b={"cost": SLOW})
    fleet[1].spec = spec("b", gpu="t4")
    lanes, later = book(), {}
    lanes.queue_up(later, [Taken(fleet[0], 2.0, 4_000)], 1_000, 0.0)
    ((why, _),) = later
    ((lane, besides_s),) = later.values()
    assert (why, lane.name, besides_s) == ("taken", "a", 2.0)
    lanes.queue_up(later, [Taken(fleet[1], float("inf"), 0)], 1_000, 0.0)
    assert len(later) == 1, "one that nobody knows when it begins is not waited for"


def test_a_backend_that_left_is_forgotten_and_its_last_mate_is_alone_again():
    fleet = views(a=crowd(2), b=crowd(1))
    lanes = book()
    listed(lanes, fleet, ask())
    kept, gone = map(lanes.lane, fleet)
    assert kept.key > gone.key > 0.0
    lanes.forget("b")
    assert kept.key == 0.0
    assert listed(lanes, fleet[:1], ask()) == ({"a"}, {})
    assert lanes.lane(fleet[1]) is not gone


def test_another_backend_in_its_place_has_a_lane_of_its_own():
    (old,), (new,) = views(a=crowd(1)), views(a=crowd(2))
    lanes = book()
    first = lanes.lane(old)
    assert lanes.lane(old) is first
    second = lanes.lane(new)
    assert second is not first
    lanes.forget("a")
    assert lanes.lane(new) is not second
