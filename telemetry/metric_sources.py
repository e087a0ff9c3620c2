"""Which part of telemetry is asked for which gauge when ``/metrics`` is read.

The router's own are in ``router_sources.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Generic, TypeVar

from router.domain.protocols import Clock
from router.domain.state import LinearCost
from telemetry import metric_table as table
from telemetry.accuracy import Accuracy
from telemetry.calibration import Calibration
from telemetry.drift import Drift, DriftDetector
from telemetry.feedback import Feedback
from telemetry.metering import Meter
from telemetry.metrics import GatewayMetrics, Sample
from telemetry.recorder import Recorder
from telemetry.scraper import Scraper
from telemetry.slo_window import SloWindow

SAME_SCRAPE_S = 0.5
COEFFICIENTS = ("step", "prefill", "seq", "context")


T = TypeVar("T")


class _Shared(Generic[T]):
    """One report for all the metrics that are read in the same scrape."""

    def __init__(self, report: Callable[[float], T], clock: Clock) -> None:
        self._report, self._clock = report, clock
        self._last: tuple[float, T] | None = None

    def __call__(self) -> T:
        now = self._clock.now()
        if self._last is None or not 0.0 <= now - self._last[0] < SAME_SCRAPE_S:
            self._last = (now, self._report(now))
        return self._last[1]


def ask_scraper(metrics: GatewayMetrics, scraper: Scraper, clock: Clock) -> None:
    """Ages, errors, problems and restarts."""

    def ages() -> Iterator[Sample]:
        now = clock.now()
        for name, report in scraper.signals_report().items():
            age_s = report.age_s(now)
            if age_s is not None:
                yield (name,), age_s

    def errors() -> Iterator[Sample]:
        for name, report in scraper.signals_report().items():
            yield from (((name, kind), float(n)) for kind, n in report.failures.items())

    def problems() -> Iterator[Sample]:
        for name, report in scraper.signals_report().items():
            counts = report.problems.counts
            yield from (((name, kind), float(n)) for kind, n in counts.items())

    metrics.ask(table.SCRAPE_AGE, ages)
    metrics.ask(table.SCRAPE_ERRORS, errors)
    metrics.ask(table.SIGNAL_PROBLEMS, problems)
    metrics.ask(table.ENGINE_RESTARTS, partial(_per_engine, scraper, "restarts"))
    metrics.ask(table.ENGINE_CHANGES, partial(_per_engine, scraper, "identity_changes"))


def _per_engine(scraper: Scraper, name: str) -> Iterator[Sample]:
    """One count of every engine's report."""
    for backend, report in scraper.signals_report().items():
        yield (backend,), float(getattr(report, name))


def ask_feedback(metrics: GatewayMetrics, feedback: Feedback) -> None:
    """Corrections and their uncertainty; degradation, if drift is watched."""

    def corrections() -> Iterator[Sample]:
        for name, (prefill, decode) in feedback.corrections().items():
            yield (name, "prefill"), prefill
            yield (name, "decode"), decode

    def deviations() -> Iterator[Sample]:
        for name, estimate in feedback.estimates().items():
            yield (name, "prefill"), estimate.prefill_deviation
            yield (name, "decode"), estimate.decode_deviation

    calibration = feedback.calibration
    if calibration is not None:
        metrics.ask(table.COEFFICIENT, partial(_coefficients, calibration, "cost"))
        metrics.ask(table.COEFFICIENT_DEVIATION, partial(_coefficients, calibration, "deviation"))
    metrics.ask(table.CORRECTION, corrections)
    metrics.ask(table.CORRECTION_DEVIATION, deviations)
    drift = feedback.drift
    if drift is not None:
        metrics.ask(table.DEGRADATION, lambda: _degradations(drift))


def _coefficients(calibration: Calibration, part: str) -> Iterator[Sample]:
    for name, estimate in calibration.estimates().items():
        values: LinearCost = getattr(estimate, part)
        for coefficient in COEFFICIENTS:
            yield (name, coefficient), getattr(values, f"{coefficient}_s")


def _degradations(drift: DriftDetector) -> Iterator[Sample]:
    yield from drift.degradations().items()


def count_drift(metrics: GatewayMetrics, drift: Drift) -> None:
    """Count one change of speed."""
    direction = "slower" if drift.factor > 1.0 else "faster"
    metrics.count(table.DRIFTS, (drift.backend, drift.phase, direction))


def ask_accuracy(metrics: GatewayMetrics, accuracy: Accuracy, clock: Clock) -> None:
    """Predicted against actual."""
    reports = _Shared(accuracy.report, clock)

    def biases() -> Iterator[Sample]:
        for backend, figures in reports().items():
            yield from (((backend, name), report.bias) for name, report in figures.items())

    def errors() -> Iterator[Sample]:
        for backend, figures in reports().items():
            for name, report in figures.items():
                yield (backend, name, "0.5"), report.p50_error
                yield (backend, name, "0.95"), report.p95_error

    def coverages() -> Iterator[Sample]:
        for backend, figures in reports().items():
            for name, report in figures.items():
                if report.coverage is not None:
                    yield (backend, name), report.coverage

    metrics.ask(table.PREDICTION_BIAS, biases)
    metrics.ask(table.PREDICTION_ERROR, errors)
    metrics.ask(table.PREDICTION_COVERAGE, coverages)


def ask_slos(metrics: GatewayMetrics, window: SloWindow, clock: Clock) -> None:
    """SLO attainment and goodput by class."""
    reports = _Shared(window.report, clock)

    def attainments() -> Iterator[Sample]:
        for name, report in reports().items():
            if report.attainment is not None:
                yield (name,), report.attainment

    def goodputs() -> Iterator[Sample]:
        for name, report in reports().items():
            yield (name,), report.goodput_per_s

    def qoes() -> Iterator[Sample]:
        for name, report in reports().items():
            if report.qoe is not None:
                yield (name,), report.qoe

    metrics.ask(table.QOE, qoes)
    metrics.ask(table.SLO_ATTAINMENT, attainments)
    metrics.ask(table.GOODPUT, goodputs)


def ask_recorder(metrics: GatewayMetrics, recorder: Recorder) -> None:
    """Rows written and lost."""
    metrics.ask(table.RECORDED, lambda: [((), float(recorder.recorded))])
    metrics.ask(
        table.RECORD_DROPPED,
        lambda: (((why,), float(count)) for why, count in recorder.dropped.items()),
    )


def ask_meter(metrics: GatewayMetrics, meter: Meter) -> None:
    """Power, energy, cost and what they are divided by."""

    def energy() -> Iterator[Sample]:
        for name, facts, source, joules in meter.energy():
            yield (name, facts.model, facts.gpu, source), joules

    def tokens() -> Iterator[Sample]:
        for key, bill in meter.bills.items():
            yield (*key, "prompt"), float(bill.prompt_tokens)
            yield (*key, "output"), float(bill.output_tokens)

    metrics.ask(table.POWER, lambda: (((n, source), w) for n, source, w in meter.watts()))
    metrics.ask(table.ENERGY, energy)
    metrics.ask(table.TENANT_COST, lambda: ((key, b.usd) for key, b in meter.bills.items()))
    metrics.ask(table.TENANT_ENERGY, lambda: ((key, b.joules) for key, b in meter.bills.items()))
    metrics.ask(table.METERED_TOKENS, tokens)
    metrics.ask(
        table.METERED_REQUESTS,
        lambda: ((key, float(b.requests)) for key, b in meter.bills.items()),
    )
