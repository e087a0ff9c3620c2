"""Predicted against actual, where the error is known."""

from __future__ import annotations

import dataclasses
import math
import random

import pytest

from telemetry.accuracy import Accuracy
from tests.telemetry.tiny_engine import outcome


def observed(ratios: list[float]) -> Accuracy:
    """TTFTs that are ``ratio`` times the predicted 0.1 s."""
    accuracy = Accuracy()
    for ratio in ratios:
        accuracy.observe(outcome(first_s=0.1 * ratio, finished_s=50.0, predicted_ttft_s=0.1))
    return accuracy


def test_a_constant_factor_is_the_bias() -> None:
    report = observed([1.2] * 100).report(50.0)["b"]["ttft"]
    assert report.count == 100
    assert report.bias == pytest.approx(1.2)
    assert report.p50_error == pytest.approx(0.2, rel=0.05)
    assert report.p95_error == pytest.approx(0.2, rel=0.05)


def test_log_normal_errors_have_their_percentiles() -> None:
    """Sigma 0.3: |ratio - 1| has median 0.20 and 95th percentile 0.71 (computed by quadrature
    of the log-normal law), and 90% of outcomes fall into the band of the earlier ones."""
    rng = random.Random(1)
    report = observed([rng.lognormvariate(0, 0.3) for _ in range(4000)]).report(50.0)["b"]["ttft"]
    assert report.bias == pytest.approx(1.0, abs=0.02)
    assert report.p50_error == pytest.approx(_quantile(0.3, 0.5), rel=0.06)
    assert report.p95_error == pytest.approx(_quantile(0.3, 0.95), rel=0.06)
    assert report.coverage == pytest.approx(0.9, abs=0.02)


def test_coverage_falls_when_the_past_stops_telling_the_future() -> None:
    rng = random.Random(1)
    steady = [rng.lognormvariate(0, 0.05) for _ in range(200)]
    drifting = [math.exp(0.02 * n) for n in range(200)]
    report = observed(steady + drifting).report(50.0)["b"]["ttft"]
    assert report.coverage is not None
    assert report.coverage < 0.75


def test_all_three_figures_are_compared() -> None:
    accuracy = Accuracy()
    accuracy.observe(
        outcome(
            first_s=0.2, finished_s=2.2, output=101, predicted_ttft_s=0.1, predicted_tpot_s=0.01
        )
    )
    report = accuracy.report(3.0)["b"]
    assert report["ttft"].bias == pytest.approx(2.0)
    assert report["tpot"].bias == pytest.approx(2.0)
    assert report["e2e"].bias == pytest.approx(2.2 / (0.1 + 100 * 0.01))


def test_predictions_that_are_none_are_skipped() -> None:
    accuracy = Accuracy()
    accuracy.observe(outcome(predicted_ttft_s=math.nan, predicted_tpot_s=0.0))
    accuracy.observe(outcome(status="failed"))
    accuracy.observe(outcome(first_s=None))
    assert accuracy.report(1.0) == {}


def test_a_backend_that_left_is_forgotten() -> None:
    accuracy = observed([1.0])
    accuracy.observe(dataclasses.replace(outcome(), backend="c"))
    accuracy.forget("b")
    assert set(accuracy.report(50.0)) == {"c"}


def _quantile(sigma: float, share: float) -> float:
    """Quantile of |X - 1| for log-normal X, by bisection on its distribution function."""

    def below(x: float) -> float:
        def phi(z: float) -> float:
            return 0.5 * (1 + math.erf(z / math.sqrt(2)))

        low = phi(math.log(1 - x) / sigma) if x < 1 else 0.0
        return phi(math.log(1 + x) / sigma) - low

    low, high = 0.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) < share else (low, middle)
    return low
