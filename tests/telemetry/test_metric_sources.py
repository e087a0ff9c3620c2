"""Gauges that are asked of their owners: a real dispatcher, scraper and learners."""

from __future__ import annotations

import math
import random

import pytest

from router.domain.slo import Slo
from router.domain.state import LinearCost
from telemetry.accuracy import Accuracy
from telemetry.drift import Drift, DriftDetector
from telemetry.feedback import Feedback
from telemetry.metric_sources import (
    ask_accuracy,
    ask_feedback,
    ask_scraper,
    ask_slos,
    count_drift,
)
from telemetry.metrics import GatewayMetrics
from telemetry.scraper import Scraper, Target
from telemetry.slo_window import SloWindow
from tests.telemetry.expositions import VLLM_V1
from tests.telemetry.test_metrics import gateway, samples, value
from tests.telemetry.tiny_engine import outcome
from tests.telemetry.web import Pages


class Clock:
    time_s = 10.0

    def now(self) -> float:
        return self.time_s


COST = LinearCost(0.01, 1e-4, 2e-5, 1e-7)


def series(metrics: GatewayMetrics, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    return {labels: found for (n, labels), found in samples(metrics).items() if n == name}


async def test_the_scraper_tells_ages_errors_problems_and_restarts() -> None:
    clock, metrics = Clock(), gateway()
    nan = VLLM_V1.replace(" 0.5\n", " NaN\n").encode()
    scraper = Scraper(
        lambda name, signals: None,
        interval_s=1.0,
        timeout_s=1.0,
        rng=random.Random(1),
        clock=clock,
        fetcher=Pages({"http://a/metrics": nan}),
    )
    ask_scraper(metrics, scraper, clock)
    scraper.add(Target("a", "http://a", "vllm"))
    scraper.add(Target("gone", "http://gone", "vllm"))
    await scraper.scrape("a")
    await scraper.scrape("gone")
    clock.time_s = 14.0
    assert series(metrics, "motley_scrape_age_seconds") == {(("backend", "a"),): 4.0}
    assert value(metrics, "motley_scrape_errors_total", backend="gone", kind="status") == 1
    assert value(metrics, "motley_signal_problems_total", backend="a", kind="nan") == 1
    assert value(metrics, "motley_engine_restarts_total", backend="a") == 0


def test_the_learners_tell_corrections_and_degradation() -> None:
    metrics = gateway()
    feedback = Feedback({"b": COST}, drift=DriftDetector())
    ask_feedback(metrics, feedback)
    assert value(metrics, "motley_correction_ratio", backend="b", phase="prefill") == 1.0
    assert value(metrics, "motley_correction_deviation_ratio", backend="b", phase="decode") == 0.4
    assert series(metrics, "motley_degradation_ratio") == {}
    assert feedback.drift is not None
    for n in range(40):
        feedback.drift.observe("b", "decode", 1.0, float(n))
    assert value(metrics, "motley_degradation_ratio", backend="b", phase="decode") == (
        pytest.approx(1.0)
    )
    count_drift(metrics, Drift("b", "decode", 1.7, 0.0, 1.0, 1.7))
    labels = {"backend": "b", "phase": "decode", "direction": "slower"}
    assert value(metrics, "motley_drift_total", **labels) == 1


def test_predictions_and_slos_are_told() -> None:
    clock, metrics, accuracy = Clock(), gateway(), Accuracy()
    slos = SloWindow({"interactive": Slo("interactive", ttft_s=0.5)})
    ask_accuracy(metrics, accuracy, clock)
    ask_slos(metrics, slos, clock)
    for _ in range(10):
        done = outcome(first_s=0.2, finished_s=5.0, predicted_ttft_s=0.1)
        accuracy.observe(done)
        slos.observe(done)
    assert value(metrics, "motley_prediction_bias_ratio", backend="b", figure="ttft") == (
        pytest.approx(2.0)
    )
    quantile = {"backend": "b", "figure": "ttft", "quantile": "0.95"}
    assert value(metrics, "motley_prediction_error_ratio", **quantile) == pytest.approx(1, rel=0.05)
    assert series(metrics, "motley_prediction_coverage_ratio") == {}  # no band yet
    assert value(metrics, "motley_slo_attainment_ratio", slo_class="interactive") == 1.0
    goodput = value(metrics, "motley_goodput_requests_per_second", slo_class="interactive")
    assert goodput == pytest.approx(10 / 300)
    assert not any(math.isnan(v) for v in samples(metrics).values())
