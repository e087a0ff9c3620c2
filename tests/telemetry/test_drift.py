"""The change-point test, on series whose change is known."""

from __future__ import annotations

import math
import random

import pytest

from telemetry.drift import WARM_UP, DriftDetector


def feed(levels: list[float], noise: float = 0.1, seed: int = 1) -> list[tuple[int, float]]:
    """(index, factor) of each change found in log-normal multipliers around the levels."""
    rng, detector, found = random.Random(seed), DriftDetector(), []
    for n, level in enumerate(levels):
        drift = detector.observe("b", "decode", level * rng.lognormvariate(0.0, noise), float(n))
        if drift is not None:
            found.append((n, drift.factor))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_a_steady_level_rings_never(seed: int) -> None:
    """Siegmund: some 70,000 observations between false alarms; here are 5 x 4,000."""
    assert feed([1.7] * 4000, seed=seed) == []


@pytest.mark.parametrize("factor", [1.5, 2.0, 4.0, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_a_step_rings_once_soon_and_with_its_size(factor: float, seed: int) -> None:
    found = feed([1.0] * 200 + [factor] * 200, seed=seed)
    ((at, size),) = found
    assert 200 <= at < 215
    assert size == pytest.approx(factor, rel=0.15)


def test_recovery_is_a_change_too_and_the_card_is_as_new() -> None:
    detector = DriftDetector()
    rng = random.Random(4)
    found = []
    for n in range(600):
        level = 2.0 if 200 <= n < 400 else 1.0
        drift = detector.observe("b", "prefill", level * rng.lognormvariate(0, 0.1), float(n))
        if drift is not None:
            found.append(drift)
    slow, well = found
    assert (slow.factor, slow.degradation) == (
        pytest.approx(2.0, rel=0.15),
        pytest.approx(2.0, rel=0.15),
    )
    assert slow.since_s == pytest.approx(200.0, abs=5.0)
    assert well.factor == pytest.approx(0.5, rel=0.1)
    assert detector.degradations()["b", "prefill"] == pytest.approx(1.0, rel=0.1)


def test_small_wandering_is_left_to_the_slow_adaptation() -> None:
    assert feed([1.0] * 200 + [1.05] * 1000) == []


def test_single_outliers_ring_nothing() -> None:
    levels = [50.0 if n % 25 == 24 else 1.0 for n in range(2000)]
    assert feed(levels) == []


def test_the_reference_is_what_was_learned_in_the_beginning() -> None:
    """A prior that is wrong by three is no drift."""
    assert feed([3.0] * 500) == []


def test_backends_and_phases_are_apart_and_may_be_forgotten() -> None:
    detector = DriftDetector()
    for n in range(WARM_UP + 5):
        detector.observe("a", "decode", 1.0, float(n))
        detector.observe("b", "decode", 3.0, float(n))
    assert set(detector.degradations()) == {("a", "decode"), ("b", "decode")}
    detector.forget("a")
    assert set(detector.degradations()) == {("b", "decode")}


@pytest.mark.parametrize("multiplier", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_multiplier_is_ignored(multiplier: float) -> None:
    detector = DriftDetector()
    assert detector.observe("b", "decode", multiplier, 0.0) is None
    assert detector.degradations() == {}
