"""Work put together from outcomes, against engines whose work is known."""

from __future__ import annotations

import dataclasses
import math
import random

import pytest

from router.domain.outcome import Meanwhile
from router.domain.state import LinearCost
from telemetry.sightings import EngineShape, Sighting, Sightings
from tests.telemetry.tiny_engine import Job, outcome, poisson, serve

A100 = LinearCost(step_s=0.0105, prefill_s=8e-5, seq_s=2e-5, context_s=7.6e-8, pair_s=6.2e-9)
MIXED = EngineShape(chunk_tokens=2048, mixed=True)
SEPARATE = EngineShape(chunk_tokens=2048, mixed=False)


def seconds(sighting: Sighting, cost: LinearCost) -> float:
    return (
        cost.step_s * sighting.steps
        + cost.prefill_s * sighting.prefill_tokens
        + cost.seq_s * sighting.seq_steps
        + cost.context_s * sighting.context_steps
        + cost.pair_s * sighting.prefill_pairs
    )


def test_a_request_alone_is_described_exactly() -> None:
    """3000 tokens in chunks of 2048 are two iterations; 101 tokens are 100 more."""
    (alone,) = serve([Job(0.0, 3000, 101)], A100)
    prefill, decode = Sightings(MIXED).note(alone)
    assert (prefill.steps, prefill.prefill_tokens, prefill.seq_steps) == (2, 3000, 0)
    assert seconds(prefill, A100) == pytest.approx(prefill.duration_s)
    assert (decode.phase, decode.steps) == ("decode", 100)
    assert decode.seq_steps == pytest.approx(100)
    assert decode.context_steps == pytest.approx(100 * 3050.5)
    assert seconds(decode, A100) == pytest.approx(decode.duration_s, rel=1e-3)


def test_a_first_token_tells_of_its_prompt_what_the_answer_will() -> None:
    (alone,) = serve([Job(0.0, 3000, 101)], A100)
    prefill, _ = Sightings(MIXED).note(alone)
    assert Sightings(MIXED).first(dataclasses.replace(alone, fresh_tokens=3000)) == prefill
    cached = Sightings(MIXED).first(dataclasses.replace(alone, fresh_tokens=1000))
    assert cached is not None
    assert cached.prefill_pairs == 1000 * (2000 + 1000 / 2)


def test_a_prompt_computed_meanwhile_is_part_of_the_decode_phase() -> None:
    jobs = [Job(0.0, 100, 200), Job(1.0, 1500, 2)]
    sightings = Sightings(MIXED)
    told = [s for o in serve(jobs, A100) for s in sightings.note(o)]
    (decode,) = (s for s in told if s.phase == "decode")
    assert decode.prefill_tokens == 1500
    assert seconds(decode, A100) == pytest.approx(decode.duration_s, rel=0.01)


def test_prompts_computed_together_are_one_step_where_prefill_is_separate() -> None:
    jobs = [Job(0.0, 100, 200), Job(1.0, 500, 2), Job(1.0, 500, 2)]
    sightings = Sightings(SEPARATE)
    told = [s for o in serve(jobs, A100, shape=SEPARATE) for s in sightings.note(o)]
    (decode,) = (s for s in told if s.phase == "decode")
    assert decode.steps == pytest.approx(199 + 1)
    assert decode.prefill_tokens == 1000


def test_cached_prompt_tokens_are_not_computed() -> None:
    (prefill,) = Sightings(MIXED).note(outcome(output=5, prompt=3000, cached=2900))
    assert (prefill.prefill_tokens, prefill.steps) == (100, 1)
    assert prefill.prefill_pairs == 100 * (2900 + 50)
    (prefill,) = Sightings(MIXED).note(outcome(output=5, prompt=3000, cached=9999))
    assert prefill.prefill_tokens == 1


def test_where_the_engine_hides_its_cache_hits_first_tokens_tell_nothing() -> None:
    sightings = Sightings(MIXED)
    assert sightings.note(outcome(output=5, prompt=3000), cached_share=0.5) == []
    (prefill,) = sightings.note(outcome(output=5, prompt=3000, cached=1000), cached_share=0.5)
    assert prefill.prefill_tokens == 2000
    (prefill,) = sightings.note(outcome(output=5, prompt=3000), cached_share=0.1)
    assert prefill.prefill_tokens == 2700


def test_a_newcomer_waits_for_what_is_scheduled_already() -> None:
    """Half of the running iteration, and with asynchronous scheduling the next one too."""
    (at_once,) = Sightings(MIXED).note(outcome(output=5, decoding=8))
    (later,) = Sightings(EngineShape(2048, mixed=True, ahead=1)).note(outcome(output=5, decoding=8))
    assert (at_once.steps, later.steps) == (1.5, 2.5)
    (idle,) = Sightings(EngineShape(2048, mixed=True, ahead=1)).note(outcome(output=5, decoding=0))
    assert idle.steps == 1


def test_a_first_token_behind_other_prompts_tells_nothing() -> None:
    assert Sightings(MIXED).note(outcome(output=5, prefilling=1)) == []


@pytest.mark.parametrize("shape", [MIXED, SEPARATE])
@pytest.mark.parametrize(("per_s", "least"), [(1.0, 140), (5.0, 700), (12.0, 1500)])
def test_under_load_the_decode_phases_add_up(shape: EngineShape, per_s: float, least: int) -> None:
    """From an idle card to one half busy with prompts: the median within 6%, none lost."""
    sightings = Sightings(shape)
    errors = []
    for done in serve(poisson(random.Random(3), per_s, 160.0), A100, shape=shape):
        for told in sightings.note(done):
            if told.phase == "decode":
                errors.append(math.log(told.duration_s / seconds(told, A100)))
    errors.sort()
    assert len(errors) >= least
    assert abs(errors[len(errors) // 2]) < 0.06
    assert errors[len(errors) * 9 // 10] - errors[len(errors) // 10] < 0.45


def test_an_answer_in_one_piece_is_taken_whole() -> None:
    (first,) = serve([Job(0.0, 1000, 101)], A100)
    for piece in (
        dataclasses.replace(first, first_token_s=None),
        dataclasses.replace(first, first_token_s=first.finished_s - 1e-4),
    ):
        (whole,) = Sightings(MIXED).note(piece)
        assert whole.phase == "whole"
        assert whole.duration_s == pytest.approx(first.finished_s)
        assert seconds(whole, A100) == pytest.approx(whole.duration_s, rel=0.02)


def test_prompts_beside_it_count_as_the_prefix_cache_really_served_them() -> None:
    """The router foresaw no hit; the engines found 90% of each prompt in their caches."""
    sightings = Sightings(MIXED)
    busy = Meanwhile(10.0, 20.0, prefills=5, prefill_tokens=5000, prefill_pairs=1e6)
    told = [
        sightings.note(outcome(prompt=1000, cached=900, fresh=1000, meanwhile=busy))[-1]
        for _ in range(3)
    ]
    assert [decode.prefill_tokens for decode in told] == pytest.approx([500.0] * 3)


@pytest.mark.parametrize(
    "beside", [None, Meanwhile(0.0, 0.0, 0, 0, 0.0), Meanwhile(-5.0, 3.0, 0, 0, 0.0)]
)
def test_a_decode_phase_with_unknown_surroundings_is_unclear(beside: Meanwhile | None) -> None:
    done = dataclasses.replace(outcome(), meanwhile=beside)
    sightings = Sightings(MIXED)
    assert [told.phase for told in sightings.note(done)] == ["prefill"]
    assert sightings.unclear == 1


@pytest.mark.parametrize(
    "broken",
    [
        {"finished_s": -1.0},
        {"finished_s": math.nan},
        {"first_s": 5.0},
        {"first_s": -1.0},
        {"first_s": math.nan},
        {"prompt": -1},
        {"output": -1},
        {"finished_s": 1e9},
        {"dispatched_s": math.nan},
    ],
)
def test_times_and_counts_that_make_no_sense_are_counted(broken: dict) -> None:
    sightings = Sightings(MIXED)
    assert sightings.note(outcome(**broken)) == []
    assert sightings.unusable == 1


def test_failed_and_cancelled_requests_tell_nothing_of_themselves() -> None:
    sightings = Sightings(MIXED)
    assert sightings.note(outcome(status="failed", first_s=None, output=0)) == []
    assert sightings.note(outcome(status="cancelled")) == []
    assert sightings.unusable == 0
