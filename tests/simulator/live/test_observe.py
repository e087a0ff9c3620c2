"""Answers become iterations."""

import pytest

from router.perf.measurements import Term
from simulator.live.observe import decode_observation, mixed_observation, prefill_observation
from simulator.live.shapes import Shape
from simulator.live.stream import Answer


def answer(first_s, step_s, tokens, sent_s=0.0):
    """Tokens at equal steps."""
    return Answer(sent_s, [first_s + k * step_s for k in range(tokens)], list(range(1, tokens + 1)))


def test_a_prompt_alone_is_its_chunks_and_the_api():
    seen = prefill_observation(Shape("prefill", 1, 5, 1), answer(0.7, 1.0, 1, sent_s=0.2), 3)
    assert seen.time_s == pytest.approx(0.5)
    assert seen.requests == 1
    # Three tokens, then two that also look at those three.
    assert seen.terms == (Term(3, 0, 0.0, 4.5), Term(2, 0, 0.0, 8.0))


def test_only_the_time_in_which_all_decode_counts():
    # The first is alone (and fast) for 5 s; then both take 0.1 s a token.
    early = Answer(
        0.0,
        [*(float(k) for k in range(5)), *(5.0 + 0.1 * k for k in range(30))],
        list(range(1, 36)),
    )
    late = answer(5.0, 0.1, 30)
    shape = Shape("decode", 2, 100, 35)
    seen = decode_observation(shape, [early, late])
    assert seen.time_s == pytest.approx(0.1)
    (term,) = seen.terms
    # 6 to 35 tokens of the one, 1 to 30 of the other, halfway.
    assert term == Term(0, 2, 100 + 20.5 + 100 + 15.5)


def test_several_tokens_in_a_chunk_are_several_iterations():
    coalesced = Answer(0.0, [0.0, 0.3, 0.6], [1, 16, 31])
    seen = decode_observation(Shape("decode", 1, 10, 31), [coalesced])
    assert seen.time_s == pytest.approx(0.02)


def test_those_that_hardly_overlap_tell_nothing():
    assert (
        decode_observation(Shape("decode", 2, 10, 30), [answer(0, 0.1, 30), answer(2.5, 0.1, 30)])
        is None
    )
    assert (
        decode_observation(Shape("decode", 2, 10, 30), [answer(0, 0.1, 30), answer(9.0, 0.1, 30)])
        is None
    )


def torn(gap_s, at=10):
    """Tokens every 0.1 s but for one gap after token ``at``."""
    times = [0.1 * k + (gap_s - 0.1 if k >= at else 0.0) for k in range(20)]
    return Answer(0.0, times, list(range(1, 21)))


INJECTED = Answer(sent_s=0.85, at_s=[1.4], tokens=[1])
MIXED = Shape("mixed", 2, 32, 20, injected_tokens=100)


def test_the_gap_is_one_iteration_with_the_prompt_in_vllm():
    seen = mixed_observation(MIXED, [torn(0.5), torn(0.5)], INJECTED, "vllm")
    assert seen.time_s == pytest.approx(0.5)
    assert seen.requests == 0
    assert seen.terms == (Term(100, 2, 2 * (32 + 10), 5_000.0),)


def test_in_sglang_the_others_decode_after_the_prompt():
    seen = mixed_observation(MIXED, [torn(0.5), torn(0.5)], INJECTED, "sglang")
    assert seen.terms == (Term(100, 0, 0.0, 5_000.0), Term(0, 2, 2 * (32 + 10), weight=1))


def test_gaps_before_the_prompt_was_sent_are_not_its_fault():
    hiccup = torn(3.0, at=3)
    later = Answer(sent_s=4.0, at_s=[4.3], tokens=[1])
    seen = mixed_observation(Shape("mixed", 1, 32, 20, 100), [hiccup], later, "vllm")
    assert seen.time_s == pytest.approx(0.1)


def test_a_prompt_that_came_too_late_tells_nothing():
    late = Answer(sent_s=5.0, at_s=[5.4], tokens=[1])
    assert mixed_observation(MIXED, [torn(0.5), torn(0.5)], late, "vllm") is None
