"""Andes QoE, against its definition summed token by token."""

from __future__ import annotations

import random

import pytest

from router.domain.qoe import READING_S, qoe, qoe_under
from router.domain.slo import Slo


def by_definition(ttft_s: float, tpot_s: float, count: int, tau_s: float, gap_s: float) -> float:
    """The two sums of the paper, with the client's buffer played out."""
    delivered = [ttft_s + i * tpot_s for i in range(count)]
    shown = [delivered[0]]
    for at in delivered[1:]:
        shown.append(max(at, shown[-1] + gap_s))
    last = shown[-1]
    actual = sum(last - at for at in shown)
    expected = sum(max(0.0, last - (tau_s + i * gap_s)) for i in range(count))
    return min(1.0, actual / expected) if expected > 0 else 1.0


def test_is_the_definition_on_evenly_spaced_tokens():
    draw = random.Random(3)
    for _ in range(300):
        ttft, tpot = draw.uniform(0.05, 20.0), draw.uniform(0.001, 0.6)
        count, tau, gap = draw.randrange(1, 400), draw.uniform(0.1, 5.0), draw.uniform(0.05, 0.4)
        got = qoe(
            ttft_s=ttft,
            tpot_s=tpot,
            output_tokens=count,
            expected_ttft_s=tau,
            expected_gap_s=gap,
        )
        assert got == pytest.approx(by_definition(ttft, tpot, count, tau, gap), abs=1e-9)


def test_a_reader_who_never_waits_is_perfectly_happy_and_speed_beyond_reading_earns_nothing():
    for tpot in (0.001, 0.05, READING_S):
        assert qoe(ttft_s=0.9, tpot_s=tpot, output_tokens=200, expected_ttft_s=1.0) == 1.0


def test_one_late_token_is_worth_nothing_and_a_late_start_weighs_less_in_a_long_answer():
    assert qoe(ttft_s=2.0, tpot_s=0.0, output_tokens=1, expected_ttft_s=1.0) == 0.0
    short = qoe(ttft_s=5.0, tpot_s=0.01, output_tokens=20, expected_ttft_s=1.0)
    long = qoe(ttft_s=5.0, tpot_s=0.01, output_tokens=500, expected_ttft_s=1.0)
    assert 0 < short < long < 1


def test_half_the_expected_speed_tends_to_half_the_quality():
    value = qoe(
        ttft_s=0.0, tpot_s=0.2, output_tokens=5_000, expected_ttft_s=0.0, expected_gap_s=0.1
    )
    assert value == pytest.approx(0.67, abs=0.01), "the reader gets all of it by the end"


def test_the_class_says_what_its_readers_expect():
    chat = Slo("chat", ttft_s=1.0, tpot_s=0.1)
    assert qoe_under(chat, ttft_s=0.5, tpot_s=0.1, output_tokens=50) == 1.0
    assert qoe_under(chat, ttft_s=0.5, tpot_s=0.2, output_tokens=50) < 1.0
    assert qoe_under(chat, ttft_s=0.5, tpot_s=None, output_tokens=1) == 1.0
    assert qoe_under(chat, ttft_s=0.5, tpot_s=None, output_tokens=0) == 0.0
    assert qoe_under(Slo("bulk"), ttft_s=900.0, tpot_s=1.0, output_tokens=9) is None
