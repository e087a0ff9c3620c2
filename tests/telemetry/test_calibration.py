"""Coefficients learned from traffic; what traffic cannot show keeps its prior and says so."""

from __future__ import annotations

import random

import pytest

from router.domain.state import LinearCost
from telemetry.calibration import SPREAD, Calibration
from tests.telemetry.tiny_engine import outcome, poisson, serve

A100 = LinearCost(step_s=0.0105, prefill_s=8e-5, seq_s=2e-5, context_s=7.6e-8, pair_s=6.2e-9)
T4 = LinearCost(step_s=0.035, prefill_s=4e-4, seq_s=4e-5, context_s=4.5e-7, pair_s=2.7e-8)


def learned(truth: LinearCost, prior: LinearCost, per_s: float, requests: int) -> Calibration:
    calibration = Calibration({"b": prior})
    for done in serve(poisson(random.Random(7), per_s, requests / per_s), truth):
        calibration.observe(done)
    return calibration


@pytest.mark.parametrize(("truth", "per_s"), [(A100, 4.0), (T4, 0.7)])
@pytest.mark.parametrize("off", [0.5, 1.5])
def test_what_makes_up_an_iteration_is_found_from_a_prior_half_wrong(
    truth: LinearCost, per_s: float, off: float
) -> None:
    prior = truth.scaled(prefill=off, decode=off)
    estimate = learned(truth, prior, per_s, 400).estimates()["b"]
    assert estimate.cost.prefill_s == pytest.approx(truth.prefill_s, rel=0.1)
    assert estimate.cost.step_s == pytest.approx(truth.step_s, rel=0.1)
    typical = (500, 8, 5000)
    assert estimate.cost.iteration_s(*typical) == pytest.approx(
        truth.iteration_s(*typical), rel=0.1
    )


def test_phases_off_in_opposite_directions_are_told_apart() -> None:
    prior = A100.scaled(prefill=2.0, decode=0.6)
    estimate = learned(A100, prior, 4.0, 400).estimates()["b"]
    assert estimate.cost.prefill_s == pytest.approx(A100.prefill_s, rel=0.1)
    assert estimate.cost.step_s == pytest.approx(A100.step_s, rel=0.1)


def test_certainty_grows_for_what_is_seen_and_not_for_what_is_not() -> None:
    estimate = learned(A100, A100, 4.0, 400).estimates()["b"]
    assert estimate.learned > 300
    assert estimate.deviation.prefill_s < 0.1
    assert estimate.deviation.step_s < 0.1
    # The context share of an 8B model with short prompts is 1%: nothing to learn from.
    assert estimate.deviation.context_s > 0.3


def test_before_anything_was_seen_the_prior_and_its_spread_hold() -> None:
    estimate = Calibration({"b": A100}).estimates()["b"]
    assert _fields(estimate.cost) == pytest.approx(_fields(A100))
    assert estimate.deviation.step_s == pytest.approx(2.718281828 ** SPREAD[1] - 1)


def test_a_throttled_clock_moves_all_of_a_phase_at_once() -> None:
    calibration = Calibration({"b": A100})
    calibration.shift("b", "decode", 0.6931471805599453)
    cost = calibration.estimates()["b"].cost
    assert _fields(cost) == pytest.approx(_fields(A100.scaled(prefill=1.0, decode=2.0)))
    calibration.shift("stranger", "decode", 1.0)


def test_a_coefficient_of_zero_stays_harmless() -> None:
    prior = LinearCost(step_s=0.0105, prefill_s=8e-5, seq_s=0.0, context_s=0.0)
    estimate = learned(A100, prior, 4.0, 200).estimates()["b"]
    assert 0 < estimate.cost.seq_s < 1e-9


def test_strangers_and_nonsense_are_ignored() -> None:
    calibration = Calibration({"b": A100})
    calibration.observe(outcome(backend="stranger"))
    calibration.observe(outcome(finished_s=-1.0))
    assert calibration.estimates()["b"].learned == 0


def _fields(cost: LinearCost) -> tuple[float, float, float, float]:
    return (cost.step_s, cost.prefill_s, cost.seq_s, cost.context_s)
