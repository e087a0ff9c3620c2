"""What live traffic teaches, against an engine whose true speed is known."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable

import pytest

from router.domain.outcome import Outcome
from router.domain.state import LinearCost
from telemetry.calibration import Calibration
from telemetry.drift import Drift, DriftDetector
from telemetry.feedback import Feedback
from telemetry.learner import EAGER_OUTCOMES, MOST_BEGUN, MOST_LOOKS
from telemetry.sightings import EngineShape
from tests.telemetry.tiny_engine import Speed, outcome, poisson, serve

A100 = LinearCost(step_s=0.0105, prefill_s=8e-5, seq_s=2e-5, context_s=7.6e-8, pair_s=6.2e-9)
T4 = LinearCost(step_s=0.035, prefill_s=4e-4, seq_s=4e-5, context_s=4.5e-7, pair_s=2.7e-8)
SGLANG = EngineShape(chunk_tokens=8192, mixed=False)
VLLM = EngineShape()


def wrong(truth: LinearCost, prefill: float, decode: float) -> LinearCost:
    """A prior that ``scaled(prefill, decode)`` puts right."""
    return truth.scaled(prefill=1 / prefill, decode=1 / decode)


def traffic(
    truth: LinearCost,
    per_s: float,
    until_s: float,
    *,
    shape: EngineShape = VLLM,
    speed: Speed = lambda now: (1.0, 1.0),
    overhead_s: float = 0.0,
    seed: int = 1,
) -> list[Outcome]:
    jobs = poisson(random.Random(seed), per_s, until_s)
    return list(serve(jobs, truth, shape=shape, speed=speed, overhead_s=overhead_s))


@pytest.mark.parametrize(("prefill", "decode"), [(1.5, 1.5), (0.5, 0.5), (1.5, 0.67), (1.0, 1.0)])
@pytest.mark.parametrize(
    ("truth", "per_s", "shape", "overhead_s"),
    [
        (A100, 4.0, VLLM, 0.0),
        (A100, 10.0, VLLM, 0.015),
        (A100, 6.0, SGLANG, 0.005),
        (T4, 0.8, VLLM, 0.01),
        (T4, 0.8, EngineShape(2048, mixed=False), 0.0),
    ],
)
def test_a_prior_half_wrong_is_right_within_ten_percent_after_300_requests(  # noqa: PLR0917
    truth: LinearCost,
    per_s: float,
    shape: EngineShape,
    overhead_s: float,
    prefill: float,
    decode: float,
) -> None:
    feedback = Feedback({"b": wrong(truth, prefill, decode)}, {"b": shape})
    done = traffic(truth, per_s, 300 / per_s, shape=shape, overhead_s=overhead_s)
    for finished in done:
        feedback.observe(finished)
    learned = feedback.corrections()["b"]
    assert learned == (pytest.approx(prefill, rel=0.1), pytest.approx(decode, rel=0.1))
    estimate = feedback.estimates()["b"]
    assert estimate.prefill_deviation < 0.12
    assert estimate.decode_deviation < 0.12


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    ("truth", "per_s", "slow"),
    [(A100, 5.0, (2.0, 2.0)), (A100, 5.0, (1.0, 2.0)), (T4, 0.8, (1.6, 1.6))],
)
def test_a_card_that_throttles_is_followed_within_a_minute(
    truth: LinearCost, per_s: float, slow: tuple[float, float], seed: int
) -> None:
    feedback = Feedback({"b": truth}, drift=DriftDetector())
    begins_s = 500 / per_s
    for finished in traffic(
        truth,
        per_s,
        begins_s + 60,
        speed=lambda now: slow if now >= begins_s else (1.0, 1.0),
        seed=seed,
    ):
        if finished.finished_s > begins_s + 60:
            break
        feedback.observe(finished)
    prefill, decode = feedback.corrections()["b"]
    # A minute of the T4 is fifty requests, half of them sent before it throttled.
    assert prefill == pytest.approx(slow[0], rel=0.25)
    assert decode == pytest.approx(slow[1], rel=0.25)


def test_hidden_cache_hits_are_not_taken_for_speed() -> None:
    """Half of each prompt is cached, unsaid: with the scraped ratio nothing is learned from first
    tokens, without it prefill looks twice as fast as it is."""
    truth = dataclasses.replace(A100, pair_s=0.0)
    hidden = [
        dataclasses.replace(finished, prompt_tokens=2 * finished.prompt_tokens)
        for finished in traffic(truth, 4.0, 100.0)
    ]
    fooled = Feedback({"b": truth})
    told = Feedback({"b": truth}, cached_share_of=lambda name: 0.5)
    for finished in hidden:
        fooled.observe(finished)
        told.observe(finished)
    assert fooled.corrections()["b"][0] == pytest.approx(0.5, rel=0.15)
    assert told.corrections()["b"][0] == pytest.approx(1.0, rel=0.15)


def test_requests_that_were_never_streamed_teach_too() -> None:
    feedback = Feedback({"b": wrong(A100, 1.4, 1.4)})
    for finished in traffic(A100, 4.0, 150.0):
        feedback.observe(dataclasses.replace(finished, first_token_s=None))
    _, decode = feedback.corrections()["b"]
    assert decode == pytest.approx(1.4, rel=0.15)


def test_before_anything_was_seen_the_prior_holds() -> None:
    feedback = Feedback({"b": A100})
    assert feedback.corrections() == {"b": (1.0, 1.0)}
    estimate = feedback.estimates()["b"]
    assert (estimate.learned, estimate.prefill_deviation) == (0, 0.5)


def test_corrections_in_force_do_not_enter_what_is_learned() -> None:
    """Predictions carry the corrections of the day; the ratio is taken against the prior."""
    done = traffic(A100, 4.0, 60.0)
    plain, misled = Feedback({"b": A100}), Feedback({"b": A100})
    for n, finished in enumerate(done):
        plain.observe(finished)
        misled.observe(
            dataclasses.replace(finished, predicted_ttft_s=10.0**n % 97, predicted_tpot_s=math.nan)
        )
    assert plain.corrections() == misled.corrections()


def corrupted(change: Callable[[Outcome, random.Random], Outcome]) -> tuple[float, float]:
    """Corrections of a right prior when every tenth outcome is corrupted."""
    rng = random.Random(5)
    feedback = Feedback({"b": A100})
    done = [
        change(finished, rng) if n % 10 == 9 else finished
        for n, finished in enumerate(traffic(A100, 4.0, 150.0))
    ]
    # Outcomes come in the order of their ends, whatever they say.
    for finished in sorted(done, key=lambda o: o.finished_s if o.finished_s < 1e9 else 0.0):
        if finished.finished_s < 150.0:
            feedback.observe(finished)
    return feedback.corrections()["b"]


@pytest.mark.parametrize(
    "change",
    [
        lambda o, rng: dataclasses.replace(o, finished_s=o.finished_s + 500.0),
        lambda o, rng: dataclasses.replace(o, first_token_s=o.dispatched_s + 1e-6),
        lambda o, rng: dataclasses.replace(o, prompt_tokens=10**9),
        lambda o, rng: dataclasses.replace(o, output_tokens=10**7),
        lambda o, rng: dataclasses.replace(o, finished_s=math.nan),
        lambda o, rng: dataclasses.replace(o, finished_s=o.dispatched_s - 5.0),
        lambda o, rng: dataclasses.replace(o, decoding_at_dispatch=rng.randrange(500)),
        lambda o, rng: dataclasses.replace(
            o, first_token_s=o.dispatched_s + rng.uniform(0, 60), finished_s=o.finished_s + 60
        ),
    ],
    ids=[
        "stuck for minutes",
        "instant first token",
        "absurd prompt",
        "absurd answer",
        "NaN",
        "ends before it began",
        "wrong batch size",
        "cold starts",
    ],
)
def test_a_tenth_of_the_outcomes_corrupted_does_not_wreck_it(
    change: Callable[[Outcome, random.Random], Outcome],
) -> None:
    prefill, decode = corrupted(change)
    assert prefill == pytest.approx(1.0, rel=0.3)
    assert decode == pytest.approx(1.0, rel=0.2)


def test_a_clock_that_jumps_by_a_day_either_way_does_no_harm() -> None:
    feedback = Feedback({"b": A100})
    done = traffic(A100, 4.0, 150.0)
    for n, finished in enumerate(done):
        shift = (0.0, 86400.0, -86400.0)[n * 3 // len(done)]
        feedback.observe(
            dataclasses.replace(
                finished,
                arrival_s=finished.arrival_s + shift,
                dispatched_s=finished.dispatched_s + shift,
                first_token_s=(finished.first_token_s or 0.0) + shift,
                finished_s=finished.finished_s + shift,
            )
        )
    prefill, decode = feedback.corrections()["b"]
    assert prefill == pytest.approx(1.0, rel=0.15)
    assert decode == pytest.approx(1.0, rel=0.15)


def test_of_a_backend_that_left_nothing_is_told() -> None:
    calibration, drift = Calibration(), DriftDetector()
    feedback = Feedback({"b": A100, "c": A100}, calibration=calibration, drift=drift)
    for one in traffic(A100, 4.0, 60.0):
        feedback.observe(one)
    feedback.remove("b")
    for told in (feedback.corrections(), feedback.estimates(), calibration.estimates()):
        assert set(told) == {"c"}
    assert drift.degradations() == {}


def test_backends_nobody_announced_are_counted_and_ignored() -> None:
    feedback = Feedback({"b": A100})
    feedback.observe(outcome(backend="stranger"))
    assert feedback.unknown == 1
    assert set(feedback.corrections()) == {"b"}
    feedback.add("c", T4)
    feedback.remove("b")
    assert set(feedback.corrections()) == {"c"}


def test_a_backend_without_traffic_learns_from_its_equals() -> None:
    """Three equal cards, believed wrongly in different ways; the third gets no request."""
    feedback = Feedback(
        {"a": wrong(A100, 1.5, 1.5), "b": wrong(A100, 0.7, 1.2), "c": wrong(A100, 2.0, 0.6)},
        groups=dict.fromkeys("abc", "a100"),
    )
    for name in "ab":
        for finished in traffic(A100, 4.0, 60.0, seed=ord(name)):
            feedback.observe(dataclasses.replace(finished, backend=name))
    learned = feedback.corrections()
    assert learned["a"] == (pytest.approx(1.5, rel=0.1), pytest.approx(1.5, rel=0.1))
    assert learned["b"] == (pytest.approx(0.7, rel=0.1), pytest.approx(1.2, rel=0.1))
    # Pulled most of the way, in logs, from 1 to the truth; its own traffic would do the rest.
    assert learned["c"][0] == pytest.approx(2.0, rel=0.2)
    assert learned["c"][1] == pytest.approx(0.6, rel=0.2)


def test_a_backend_long_without_traffic_is_tried_again() -> None:
    """Believed three times as slow and so left alone: after five minutes, as its equals are."""
    feedback = Feedback({"sick": A100, "well": A100}, groups={"sick": "g", "well": "g"})
    slow = A100.scaled(prefill=3.0, decode=3.0)
    for finished in traffic(slow, 1.0, 200.0):
        feedback.observe(dataclasses.replace(finished, backend="sick"))
    assert feedback.corrections()["sick"][1] == pytest.approx(3.0, rel=0.1)
    for finished in traffic(A100, 4.0, 520.0):
        if finished.finished_s > 205.0:
            feedback.observe(dataclasses.replace(finished, backend="well"))
        if finished.finished_s < 250.0:
            assert feedback.corrections()["sick"][1] == pytest.approx(3.0, rel=0.1)
    assert feedback.corrections()["sick"][1] < 1.3


def test_changes_are_told_once() -> None:
    feedback = Feedback({"b": wrong(A100, 1.5, 1.5)})
    assert feedback.changes() == {}
    for finished in traffic(A100, 4.0, 30.0):
        feedback.observe(finished)
    assert feedback.changes() == feedback.corrections()
    assert feedback.changes() == {}


def test_learning_is_paced_whatever_the_rate() -> None:
    """At 12 requests a second, the first 100 teach, then one every half second, or the next one
    after a surprise."""
    feedback = Feedback({"b": A100}, pause_s=0.5)
    for finished in traffic(A100, 12.0, 120.0):
        feedback.observe(finished)
    # At most one prefill and one decode duration of each outcome that is learned from.
    assert 300 < feedback.estimates()["b"].learned <= 2 * (100 + 120 / 0.5)


def test_surprises_are_paced_too() -> None:
    """Engines whose speed jumps about surprise all the time: learning has a price all the same."""
    feedback = Feedback({"b": A100}, pause_s=10.0)
    for n, finished in enumerate(traffic(A100, 40.0, 60.0)):
        late_s = finished.finished_s + (n % 2) * 5.0
        feedback.observe(dataclasses.replace(finished, finished_s=late_s))
    paused = 65.0 / 10.0 + 1
    learned = feedback.estimates()["b"].learned
    assert 100 < learned <= 2 * (EAGER_OUTCOMES + MOST_LOOKS * paused)


def test_what_surprises_is_looked_at_more_closely() -> None:
    """A steady card teaches one outcome in half a minute; one that has slowed down, one after
    the other, until it is understood."""
    steady, slowed = (
        Feedback({"b": A100}, pause_s=30.0),
        Feedback({"b": A100}, pause_s=30.0),
    )
    lessons = {1.0: 0, 2.0: 0}
    for feedback, factor in ((steady, 1.0), (slowed, 2.0)):
        before = 0
        for finished in traffic(
            A100,
            4.0,
            240.0,
            speed=lambda now, factor=factor: (factor, factor) if now > 120.0 else (1.0, 1.0),
        ):
            feedback.observe(finished)
            if finished.finished_s <= 120.0:
                before = feedback.estimates()["b"].learned
        lessons[factor] = feedback.estimates()["b"].learned - before
    assert lessons[2.0] >= 2 * lessons[1.0] > 0
    assert slowed.corrections()["b"] == (
        pytest.approx(2.0, rel=0.25),
        pytest.approx(2.0, rel=0.25),
    )


def test_a_sudden_change_is_named_with_phase_and_size() -> None:
    found: list[Drift] = []
    feedback = Feedback({"b": T4}, drift=DriftDetector(), on_drift=found.append)
    for finished in traffic(
        T4, 0.7, 560.0, speed=lambda now: (2.0, 1.0) if now >= 300.0 else (1.0, 1.0)
    ):
        feedback.observe(finished)
    assert {drift.phase for drift in found} == {"prefill"}
    assert found[0].backend == "b"
    assert 295.0 < found[0].detected_s < 360.0
    assert math.prod(drift.factor for drift in found) == pytest.approx(2.0, rel=0.2)


@pytest.mark.parametrize(("truth", "per_s", "shape"), [(A100, 4.0, VLLM), (T4, 0.7, VLLM)])
def test_a_steady_card_raises_no_alarm(truth: LinearCost, per_s: float, shape: EngineShape) -> None:
    found: list[Drift] = []
    feedback = Feedback({"b": truth}, {"b": shape}, drift=DriftDetector(), on_drift=found.append)
    for finished in traffic(truth, per_s, 1500 / per_s, shape=shape):
        feedback.observe(finished)
    assert found == []


class TestFirstTokens:
    """What a first token tells counts until its answer is over, and then the answer does."""

    SLOW = A100.scaled(prefill=3.0, decode=1.0)

    def begun(self, count: int) -> list[Outcome]:
        """Answers to longer prompts, by a card a third as fast at these as believed."""
        answers = [one for one in traffic(self.SLOW, 0.2, 4e3) if one.prompt_tokens > 800]
        return [
            dataclasses.replace(one, request_id=f"r{k}", fresh_tokens=one.prompt_tokens)
            for k, one in enumerate(answers[:count])
        ]

    def test_a_slow_card_is_known_before_its_answers_are_over(self) -> None:
        feedback = Feedback({"b": A100})
        (one,) = self.begun(1)
        feedback.began(one.request_id, "b", one)
        prefill, decode = feedback.changes()["b"]
        assert prefill > 2.0
        assert decode == pytest.approx(1.0, abs=0.25)

    def test_nothing_is_learned_twice(self) -> None:
        both, ends = Feedback({"b": A100}), Feedback({"b": A100})
        for one in self.begun(20):
            both.began(one.request_id, "b", one)
            for feedback in (both, ends):
                feedback.observe(one)
            assert both.corrections() == ends.corrections()

    def test_nor_kept_before_it_is_over(self) -> None:
        feedback = Feedback({"b": A100})
        for one in self.begun(5):
            feedback.began(one.request_id, "b", one)
        assert feedback.corrections()["b"][0] > 1.5
        assert feedback.estimates()["b"].prefill == 1.0
        assert feedback.speeds(100.0) == []

    def test_one_that_failed_is_forgotten(self) -> None:
        feedback = Feedback({"b": A100})
        (one,) = self.begun(1)
        feedback.began(one.request_id, "b", one)
        assert feedback.corrections()["b"][0] > 1.0
        feedback.observe(dataclasses.replace(one, status="failed"))
        assert feedback.corrections() == {"b": (1.0, 1.0)}

    def test_who_is_known_well_waits_for_the_ends(self) -> None:
        feedback = Feedback({"b": A100})
        for one in traffic(A100, 4.0, 60.0):
            feedback.observe(one)
        known = feedback.corrections()
        for one in self.begun(9):
            feedback.began(one.request_id, "b", one)
        assert feedback.corrections() == known

    @pytest.mark.parametrize(
        "change",
        [
            {"prefilling_at_dispatch": 1},
            {"first_token_s": None},
            {"first_token_s": math.nan},
            {"dispatched_s": 1e9},
            {"dispatched_s": -1e9},
        ],
    )
    def test_one_that_tells_nothing_changes_nothing(self, change: dict[str, float]) -> None:
        feedback = Feedback({"b": A100})
        one = dataclasses.replace(self.begun(1)[0], **change)
        feedback.began(one.request_id, "b", one)
        feedback.began(one.request_id, "unheard of", one)
        assert feedback.corrections() == {"b": (1.0, 1.0)}

    def test_only_the_latest_are_kept_in_mind(self) -> None:
        many, last = Feedback({"b": A100}), Feedback({"b": A100})
        answers = self.begun(MOST_BEGUN + 4)
        for k, one in enumerate(answers):
            many.began(one.request_id, "b", one)
            if k >= 4:
                last.began(one.request_id, "b", one)
        assert many.corrections() == last.corrections()

    def test_tokens_that_its_cache_had_are_not_taken_for_speed(self) -> None:
        """The engine finds nine tenths of every prompt, and says so at the end of the answer."""
        feedback = Feedback({"b": A100})
        hidden = [
            dataclasses.replace(
                one, prompt_tokens=10 * one.prompt_tokens, fresh_tokens=10 * one.prompt_tokens
            )
            for one in traffic(dataclasses.replace(A100, pair_s=0.0), 0.5, 60.0)
        ]
        for one in hidden[:-1]:
            found = one.prompt_tokens * 9 // 10
            feedback.observe(dataclasses.replace(one, cached_tokens=found))
        known = feedback.corrections()["b"]
        feedback.began(hidden[-1].request_id, "b", hidden[-1])
        assert feedback.corrections()["b"] == pytest.approx(known, rel=0.1)
