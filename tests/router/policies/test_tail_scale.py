"""The tails that the policy weighs by, over a restart."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from router.domain.outcome import Outcome
from router.policies.tail_scale import MOST_TIMES, PRIOR_E2E_S, WORTH, TailScale


def outcomes(n: int, times: float = 1.0, seed: int = 1) -> Iterator[Outcome]:
    rng = random.Random(seed)
    for k in range(n):
        ttft_s = 0.1 * times * rng.lognormvariate(0.0, 0.5)
        e2e_s = ttft_s + 5.0 * times * rng.lognormvariate(0.0, 0.8)
        yield Outcome(
            *(str(k), "m", "interactive", "", "b", "completed"),
            *(0.0, 0.0, ttft_s, e2e_s, 100, 100, None, None, 0, 0, 0.1, 0.01, 100.0),
        )


def taught(n: int = 500) -> TailScale:
    scale = TailScale()
    for outcome in outcomes(n):
        scale.observe(outcome)
    return scale


def test_it_begins_where_it_was() -> None:
    before, after = taught(), TailScale()
    after.recall(before.known())
    assert after.known() == before.known()
    assert after.overshoot == before.overshoot


def test_a_guess_is_not_kept() -> None:
    assert TailScale().known() == {}
    assert taught(5).known() == {}


def test_of_ttft_nothing_is_kept() -> None:
    """A tail from heavier work would let everybody wait."""
    after = TailScale()
    after.recall(taught().known())
    assert after.ttft_s == TailScale().ttft_s


def test_the_first_short_answers_hardly_move_it() -> None:
    """They are over first; without a memory they would be taken for the tail."""
    before, after, cold = taught(), TailScale(), TailScale()
    after.recall(before.known())
    for outcome in outcomes(12, times=0.1):
        after.observe(outcome)
        cold.observe(outcome)
    assert after.e2e_s > 0.8 * before.e2e_s
    assert cold.e2e_s < 0.3 * before.e2e_s


def test_another_load_is_known_after_two_hundred_answers_as_exactly_as_without_memory() -> None:
    after, cold = TailScale(), TailScale()
    after.recall(taught().known())
    for outcome in outcomes(200, times=8.0):
        after.observe(outcome)
        cold.observe(outcome)
    assert after.ttft_s == pytest.approx(cold.ttft_s)
    assert after.e2e_s == pytest.approx(cold.e2e_s)


@pytest.mark.parametrize(
    "known",
    [
        {},
        {"e2e_s": 5.0, "e2e_moment": 0.1},  # of a Motley that kept it in plain seconds
        {"counted_e2e_s": 1.0},
        {"counted_e2e_s": math.nan, "e2e_moment": 0.1},
        {"counted_e2e_s": -1.0, "e2e_moment": 0.1},
        {"counted_e2e_s": math.inf, "e2e_moment": 0.1},
        {"counted_e2e_s": 1.0, "e2e_moment": 0.0},
    ],
)
def test_what_makes_no_sense_is_not_believed(known: dict[str, float]) -> None:
    scale = TailScale()
    scale.recall(known)
    assert scale.e2e_s == PRIOR_E2E_S
    assert scale.known() == {}


def test_what_is_absurd_is_bounded() -> None:
    scale = TailScale()
    scale.recall({"counted_e2e_s": 1e300, "e2e_moment": 1e300})
    assert all(math.isfinite(value) for value in (scale.worth, scale.overshoot, scale.e2e_s**2))


def test_one_answer_without_end_counts_no_more_than_a_very_long_one() -> None:
    long, endless = taught(), taught()
    for scale, e2e_s in ((long, 1e5), (endless, 1e9)):
        scale.observe(replace(next(outcomes(1)), finished_s=e2e_s))
    assert endless.overshoot == long.overshoot < 3.0 * taught().overshoot


def test_once_it_has_begun_one_answer_moves_it_by_a_tenth_at_most() -> None:
    """Up by nearly that, down by a fiftieth of it: so it comes to rest at the 98th percentile."""
    for e2e_s, moved in ((1e5, math.exp(0.1 * 0.98)), (0.5, math.exp(-0.1 * 0.02))):
        scale = taught()
        before_s = scale.e2e_s
        scale.observe(replace(next(outcomes(1)), finished_s=e2e_s))
        assert scale.e2e_s == pytest.approx(before_s * moved)


@pytest.mark.parametrize(
    ("ttft_s", "times"),
    [(0.0, 1.0), (2.5, 0.5 + 0.5 * MOST_TIMES), (5.0, MOST_TIMES), (18.0, MOST_TIMES)],
)
def test_ttft_counts_for_more_the_more_of_e2e_it_is(ttft_s: float, times: float) -> None:
    """Of 20 s of E2E; a quarter of that is as much as all."""
    scale = TailScale()
    for one in outcomes(200):
        scale.observe(replace(one, first_token_s=ttft_s, finished_s=20.0))
    assert scale.worth == pytest.approx(times * WORTH, rel=0.001)
