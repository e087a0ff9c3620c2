"""What one backend's lane knows: when it can begin, and when it has room."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from router.domain.state import LinearCost
from router.policies.lane import (
    KV_LIMIT,
    LATE_S,
    LATE_SHARE,
    LEAST_FIRST_S,
    PREFILL_SHARE_LIMIT,
    Lane,
)
from tests.fakes import FAST, view

PAIRS = LinearCost(step_s=0.010, prefill_s=0.0001, seq_s=0.0002, context_s=1e-6, pair_s=1e-8)


def lane(now: float = 0.0, **state: Any) -> Lane:
    """A refreshed lane of a backend in this state."""
    found = Lane(view(**state))
    found.refresh(now)
    return found


def crowd(n: int, context: float, pending: float, **state: Any) -> dict[str, Any]:
    """n requests decoding."""
    counts = {"in_flight": n, "decoding": n}
    return {**counts, "context_tokens": context, "pending_output_tokens": pending, **state}


class TestBacklog:
    STATE: dict[str, Any] = {  # noqa: RUF012
        "in_flight": 1,
        "prefilling": 1,
        "pending_prefill_tokens": 4_096,
        "prefill_since_s": 5.0,
    }
    # 4,096 tokens of 0.1 ms, two iterations' shares of 10 ms, and the one that runs.
    NEEDS_S = 4_096 * 0.0001 + 2 * 0.010 + 0.010

    def test_nobody_waits_where_nothing_is_computed(self):
        idle = lane()
        assert idle.backlog_ends_s == -math.inf
        assert idle.wait_s(7.0) == 0.0

    def test_a_prompt_that_is_computed_is_waited_for(self):
        busy = lane(5.0, **self.STATE)
        assert busy.backlog_ends_s == pytest.approx(5.0 + self.NEEDS_S)
        assert busy.wait_s(5.1) == pytest.approx(self.NEEDS_S - 0.1)

    def test_one_that_is_overdue_is_expected_to_be_as_late_again(self):
        assert lane(5.0, **self.STATE).wait_s(6.0) == pytest.approx(1.0 - self.NEEDS_S)

    def test_long_prompts_look_back(self):
        seen = {**self.STATE, "cost": PAIRS, "pending_prefill_pairs": 8e6}
        assert lane(5.0, **seen).backlog_ends_s == pytest.approx(5.0 + self.NEEDS_S + 0.08)


class TestTheFirstInLine:
    """Prompts are computed in their order: what was there before says when the first is late."""

    FIRST: dict[str, Any] = {  # noqa: RUF012
        "in_flight": 1,
        "prefilling": 1,
        "pending_prefill_tokens": 2_048,
        "prefill_since_s": 5.0,
    }
    COUNTS: dict[str, Any] = {"in_flight": 4, "prefilling": 4}  # noqa: RUF012
    MORE: dict[str, Any] = {**FIRST, **COUNTS, "pending_prefill_tokens": 8_192}  # noqa: RUF012
    FIRST_S = 2_048 * 0.0001 + 0.010 + 0.010
    ALL_S = 8_192 * 0.0001 + 4 * 0.010 + 0.010

    def behind(self) -> Lane:
        """Three more were sent 0.1 s after the first."""
        found = lane(5.0, **self.FIRST)
        found.view = view(**self.MORE)
        found.refresh(5.1)
        return found

    def test_while_it_is_not_late_all_are_waited_for(self):
        assert self.behind().wait_s(5.2) == pytest.approx(self.ALL_S - 0.2)

    def test_when_it_is_late_those_behind_it_will_be_as_late_in_proportion(self):
        # Twice its time has passed, so what is behind it takes twice as long too.
        rest_s = self.ALL_S - self.FIRST_S
        late = self.behind().wait_s(5.0 + 2 * self.FIRST_S)
        assert late == pytest.approx(self.FIRST_S + 2 * rest_s)

    def test_what_came_within_the_step_before_it_shares_its_step(self):
        found = lane(5.0, **{**self.FIRST, "pending_prefill_tokens": 20})
        found.add_prefill(8_172, 0, 5.009)
        found.view = view(**{**self.MORE, "in_flight": 2, "prefilling": 2})
        found.refresh(5.5)
        assert found.late_from_s == found.backlog_ends_s

    def test_a_first_that_is_short_tells_of_a_step_and_not_of_speed(self):
        found = lane(5.0, **{**self.FIRST, "pending_prefill_tokens": 20})
        found.view = view(**self.MORE)
        found.refresh(5.2)
        assert found.late_from_s == pytest.approx(5.0 + 20 * 0.000105 + 0.010, abs=0.01)
        late_s = 6.0 - found.late_from_s
        behind_s = found.backlog_ends_s - found.late_from_s
        assert found.wait_s(6.0) == pytest.approx(behind_s + self.ALL_S / LEAST_FIRST_S * late_s)

    def test_a_correction_of_the_speed_counts_for_the_first_too(self):
        found = self.behind()
        cost = replace(FAST, prefill_s=10 * FAST.prefill_s)
        found.view = view(**self.MORE, cost=cost)
        found.refresh(5.3)
        first_s = found.late_from_s - 5.0
        assert first_s == pytest.approx(2_048 * 0.001 + 0.010 + 0.010)

    def test_once_it_is_through_the_next_is_the_first(self):
        found = self.behind()
        left = {**self.MORE, "prefilling": 3, "pending_prefill_tokens": 6_144}
        found.view = view(**{**left, "prefill_since_s": 5.5})
        found.refresh(5.5)
        assert found.late_from_s == found.backlog_ends_s

    def test_a_successor_knows_since_when_which_prompt_was_computed(self):
        fresh = lane(5.1, **self.MORE)
        assert fresh.late_from_s == fresh.backlog_ends_s
        fresh.take_over(self.behind())
        assert fresh.late_from_s == pytest.approx(5.0 + self.FIRST_S)


class TestRoom:
    def test_an_idle_engine_admits_any_prompt(self):
        assert lane().room_tokens == math.inf
        assert lane().room_wait_s(10**9) == 0.0

    def test_a_full_engine_admits_none(self):
        assert lane(**crowd(256, 1_000.0, 1_000.0)).room_tokens == 0.0

    def test_otherwise_what_is_left_of_nine_tenths_of_its_kv(self):
        left = KV_LIMIT * 100_000 - 30_000
        assert lane(**crowd(10, 30_000.0, 1_000.0)).room_tokens == pytest.approx(left)

    def step_s(self, n: int, context: float) -> float:
        return 0.010 + 0.0002 * (n + 1) + 1e-6 * context

    def test_where_slots_are_full_one_of_all_has_to_end(self):
        full = lane(**crowd(256, 1_000.0, 25_600.0))
        # 100 tokens each, of which the first to end has a 256th.
        assert full.room_wait_s(10) == pytest.approx(100 / 256 * self.step_s(256, 1_000.0))

    def test_where_kv_is_full_as_many_as_make_room(self):
        held = 85_000.0
        crowded = lane(**crowd(20, held, 2_000.0))
        short = held + 10_000 - KV_LIMIT * 100_000
        expected = short / held * 100 * self.step_s(20, held)
        assert crowded.room_wait_s(10_000) == pytest.approx(expected)
        assert crowded.room_wait_s(4_000, ahead=6_000) == pytest.approx(expected)
        assert crowded.room_wait_s(5_000) == 0.0

    def test_however_little_is_missing_one_has_to_end(self):
        crowded = lane(**crowd(20, 85_000.0, 2_000.0))
        assert crowded.room_wait_s(5_001) == pytest.approx(100 / 20 * self.step_s(20, 85_000.0))

    def test_a_prompt_that_needs_everything_waits_for_all(self):
        crowded = lane(**crowd(10, 50_000.0, 1_000.0))
        assert crowded.room_wait_s(95_000) == pytest.approx(100 * self.step_s(10, 50_000.0))

    def test_both_reasons_are_waited_for_together(self):
        both = lane(**crowd(256, 85_000.0, 25_600.0))
        expected = 5_000 / 85_000 * 100 * self.step_s(256, 85_000.0)
        assert both.room_wait_s(10_000) == pytest.approx(expected)


class TestWhatAnEngineHolds:
    LATE: dict[str, Any] = {  # noqa: RUF012
        **crowd(2, 60_000.0, 100.0),
        "prefilling": 1,
        "pending_prefill_tokens": 0,
        "prefill_since_s": 0.0,
    }
    # Nothing but the iteration that runs: two sequences decoding over 60,000 tokens.
    NEEDS_S = 0.010 + 2 * 0.0002 + 0.060
    OVERDUE_S = NEEDS_S + LATE_S + LATE_SHARE * NEEDS_S

    def test_a_prompt_long_overdue_says_that_it_is_full_already(self):
        on_time = lane(self.OVERDUE_S - 0.001, **self.LATE)
        assert on_time.room_tokens == pytest.approx(KV_LIMIT * 100_000 - 60_000)
        late = lane(self.OVERDUE_S + 0.001, **self.LATE)
        assert late.room_tokens == pytest.approx(0.9 * 60_000 - 60_000)

    def test_that_is_forgotten_slowly(self):
        known = lane(self.OVERDUE_S + 1.0, **self.LATE)
        known.view.prefilling = 0  # type: ignore[misc]
        known.refresh(10.0)
        once = known.room_tokens
        assert once == pytest.approx(0.54 * 100_000 + 0.0005 * 36_000 - 60_000)
        for _ in range(20_000):
            known.refresh(10.0)
        assert known.room_tokens == pytest.approx(30_000, abs=10)

    def test_a_successor_takes_it_over(self):
        late = lane(self.OVERDUE_S + 1.0, **self.LATE)
        late.add_prefill(10_000, 0, 3.0)
        late.trust.judge(100, 0)
        fresh = lane(**self.LATE)
        fresh.take_over(late)
        late.trust.judge(100, 50)
        assert fresh.room_tokens == late.room_tokens
        assert fresh.trust.share == late.trust.share < 1.0
        assert fresh.prefill_share(4.0) == late.prefill_share(4.0) > 0.0

    def test_and_is_late_with_nothing_where_nothing_is_computed(self):
        fresh = lane()
        fresh.take_over(lane())
        assert (fresh.wait_s(7.0), fresh.late_from_s) == (0.0, math.inf)


class TestPrompts:
    def test_a_prompt_costs_its_tokens_and_its_share_of_every_iteration(self):
        assert lane().prompt_s(2_048, 0) == pytest.approx(0.2048 + 0.010)
        assert lane().prompt_s(2_048, 1_024) == pytest.approx(0.1024 + 0.005)

    def test_and_the_attention_to_what_comes_before(self):
        plain, with_pairs = lane(), lane(cost=PAIRS)
        extra = with_pairs.prompt_s(3_000, 1_000) - plain.prompt_s(3_000, 1_000)
        assert extra == pytest.approx(1e-8 * 2_000 * (1_000 + 1_000))

    def test_the_share_of_prefill_fades_within_seconds_and_is_bounded(self):
        busy = lane()
        assert busy.prefill_share(0.0) == 0.0
        busy.add_prefill(20_000, 10_000, 0.0)  # a second of work, over ten
        assert busy.prefill_share(0.0) == pytest.approx(0.1)
        assert busy.prefill_share(10.0) == pytest.approx(0.1 / math.e)
        busy.add_prefill(10_000, 0, 10.0)
        assert busy.prefill_share(10.0) == pytest.approx(0.1 + 0.1 / math.e)
        busy.add_prefill(10**6, 0, 10.0)
        assert busy.prefill_share(10.0) == PREFILL_SHARE_LIMIT


class TestCrowd:
    def test_it_is_there_as_long_as_anything_is_in_flight(self):
        busy = lane(in_flight=2)
        busy.crowd.enter(0.04)
        busy.refresh(1.0)
        assert busy.crowd.weight == 0.04
        busy.view.in_flight = 0  # type: ignore[misc]
        busy.refresh(2.0)
        assert busy.crowd.weight == 1.0
