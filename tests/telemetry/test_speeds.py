"""Speeds over a restart: whose they are, how surely, and what of those that are gone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.domain.state import LinearCost
from telemetry import speeds
from telemetry.calibration import Calibration
from telemetry.drift import Drift, DriftDetector
from telemetry.feedback import Feedback
from telemetry.speeds import OLDEST_S, Before
from tests.telemetry.test_feedback import A100, VLLM, traffic, wrong

PRIOR = wrong(A100, 1.5, 0.7)
MINUTE_S, DAY_S = 60.0, 86_400.0


def learner(*names: str, card: str = "card", prior: LinearCost = PRIOR) -> Feedback:
    """Of backends that are all alike."""
    return Feedback(
        dict.fromkeys(names, prior),
        groups=dict.fromkeys(names, "g"),
        cards=dict.fromkeys(names, card),
        calibration=Calibration(),
        drift=DriftDetector(),
    )


@pytest.fixture(scope="module")
def taught() -> Feedback:
    """Two minutes of traffic on ``b``; the clock stands at 120 s."""
    feedback = learner("b")
    for outcome in traffic(A100, 5.0, 120.0):
        feedback.observe(outcome)
    return feedback


def test_a_minute_away_changes_hardly_anything_but_the_certainty(taught: Feedback) -> None:
    again = learner("b")
    assert again.restore(taught.speeds(120.0), MINUTE_S, 7_000.0) == 1
    (before,), (after,) = taught.estimates().values(), again.estimates().values()
    assert after.prefill == pytest.approx(before.prefill, rel=0.03)
    assert after.decode == pytest.approx(before.decode, rel=0.03)
    assert before.decode_deviation < after.decode_deviation < 0.2
    assert (after.before, after.learned) == (before.learned, 0)
    assert again.corrections()["b"] == pytest.approx(taught.corrections()["b"], rel=0.1)
    assert again.changes()["b"] == again.corrections()["b"]
    assert again.calibration is not None
    assert taught.calibration is not None
    known, was = again.calibration.estimates()["b"], taught.calibration.estimates()["b"]
    assert known.cost.step_s == pytest.approx(was.cost.step_s, rel=0.03)


def test_told_twice_it_is_as_told_once(taught: Feedback) -> None:
    """A restart right after a restart loses nothing: there was no traffic in between."""
    once, twice = learner("b"), learner("b")
    once.restore(taught.speeds(120.0), 0.0, 0.0)
    twice.restore(once.speeds(0.0), 0.0, 50.0)
    assert [s.factors.phi for s in twice.speeds(50.0)] == [s.factors.phi for s in once.speeds(0.0)]
    assert [s.levels for s in twice.speeds(50.0)] == [s.levels for s in taught.speeds(120.0)]
    assert twice.speeds(50.0)[0].durations == taught.speeds(120.0)[0].durations


def test_the_longer_ago_the_less_it_counts_and_after_weeks_not_at_all(taught: Feedback) -> None:
    def decode_after(away_s: float) -> float:
        again = learner("b")
        again.restore(taught.speeds(120.0), away_s, 0.0)
        return again.corrections()["b"][1]

    hour, day, week = (decode_after(days * DAY_S) for days in (1 / 24, 1, 7))
    assert 0.7 <= hour < day < week < 1.0
    assert decode_after(OLDEST_S + DAY_S) == 1.0


@pytest.mark.parametrize(
    "other",
    [{"card": "another"}, {"prior": wrong(A100, 1.5, 0.8)}],
    ids=["another card", "another measurement of it"],
)
def test_another_card_of_the_same_name_does_not_go_on_from_it(
    taught: Feedback, other: dict[str, object]
) -> None:
    again = learner("b", **other)  # type: ignore[arg-type]
    assert again.restore(taught.speeds(120.0), MINUTE_S, 0.0) == 0
    assert again.estimates()["b"].before == 0
    assert again.drift is not None
    assert not again.drift.levels("b")


def test_one_of_another_group_has_no_use_for_it(taught: Feedback) -> None:
    again = Feedback({"x": PRIOR}, groups={"x": "other"}, cards={"x": "card"})
    again.restore(taught.speeds(120.0), MINUTE_S, 0.0)
    assert again.corrections()["x"] == (1.0, 1.0)


def test_an_equal_under_a_new_name_is_told_until_it_knows_itself(taught: Feedback) -> None:
    """Pods have other names and addresses after every deployment."""
    again = learner("new", card="another address")
    again.restore(taught.speeds(120.0), MINUTE_S, 0.0)
    prefill, decode = taught.corrections()["b"]
    assert again.corrections()["new"][1] == pytest.approx(decode, rel=0.12)
    assert again.corrections()["new"][0] == pytest.approx(prefill, rel=0.12)
    # It is slower than its equal was, which it shows.
    for outcome in traffic(A100, 5.0, 60.0, speed=lambda now: (2.0, 2.0)):
        object.__setattr__(outcome, "backend", "new")
        again.observe(outcome)
    assert again.corrections()["new"][1] == pytest.approx(1.4, rel=0.1)


def test_a_backend_that_is_discovered_later_is_recognized_once(taught: Feedback) -> None:
    again = learner()
    assert again.restore(taught.speeds(120.0), MINUTE_S, 0.0) == 0
    again.add("b", PRIOR, VLLM, "g", "card")
    assert again.estimates()["b"].before > 0
    assert again.changes()["b"][1] == pytest.approx(0.7, rel=0.1)
    again.add("b", PRIOR, VLLM, "g", "card")  # another engine took its name
    assert again.estimates()["b"].before == 0


def test_what_nobody_claims_is_kept_for_the_next_restart_until_it_is_old(taught: Feedback) -> None:
    again = learner("x", card="other")
    again.restore(taught.speeds(120.0), MINUTE_S, 0.0)
    (kept,) = again.speeds(30.0)
    assert kept.name == "b"
    assert kept.age_s == pytest.approx(taught.speeds(120.0)[0].age_s + MINUTE_S + 30.0)
    assert again.speeds(2 * OLDEST_S) == []
    assert not list(Before([kept], OLDEST_S))


def test_a_card_that_changed_while_the_gateway_was_away_is_noticed(taught: Feedback) -> None:
    found: list[Drift] = []
    again = learner("b")
    again.on_drift = found.append
    again.restore(taught.speeds(120.0), MINUTE_S, 0.0)
    for outcome in traffic(A100, 5.0, 120.0, speed=lambda now: (1.6, 1.6), seed=2):
        again.observe(outcome)
    again.corrections()
    assert found
    assert again.corrections()["b"][1] == pytest.approx(0.7 * 1.6, rel=0.1)
    assert again.drift is not None
    assert max(again.drift.degradations().values()) == pytest.approx(1.6, rel=0.15)


def test_a_backend_that_leaves_and_comes_back_is_known_again(taught: Feedback) -> None:
    """Names flap: an answer of a name server without it is no other engine."""
    feedback = learner("b")
    feedback.restore(taught.speeds(120.0), MINUTE_S, 0.0)
    for outcome in traffic(A100, 5.0, 60.0):
        feedback.observe(outcome)
    before = feedback.corrections()["b"]
    for _ in range(3):
        feedback.remove("b")
        assert "b" not in feedback.corrections()
        feedback.add("b", PRIOR, VLLM, "g", "card")
    assert feedback.corrections()["b"] == pytest.approx(before, rel=0.1)
    assert feedback.drift is not None
    assert feedback.drift.levels("b")
    feedback.remove("b")
    feedback.add("b", PRIOR, VLLM, "g", "another card")
    assert feedback.corrections()["b"] == (1.0, 1.0)


def test_of_those_that_left_the_last_ones_are_kept(
    taught: Feedback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every deployment brings new names; they stay for their equals, and for the file."""
    (speed,) = taught.speeds(120.0)
    monkeypatch.setattr(speeds, "MOST_LEFT", 2)
    before = Before(now=100.0)
    for number in range(4):
        before.keep(replace(speed, name=f"b{number}", age_s=1.0), 100.0 + number)
    assert [(one.name, one.age_s) for one in before.left({}, 110.0)] == [("b2", 9.0), ("b3", 8.0)]
    again = before.claim("b3", "card", PRIOR, 110.0)
    assert again is not None
    assert again.age_s == 8.0
