"""Who is asked for which gauge when ``/metrics`` is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Generic, TypeVar

from router.class_dispatcher import desk_of
from router.dispatcher import Dispatcher
from router.domain.protocols import Clock, PrefixAudit
from router.domain.state import LinearCost
from router.fleet_state.backend import BackendState
from router.pairing import Pairing
from router.queue.desk import Desk
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

BREAKER_NUMBER: Mapping[str, float] = {"closed": 0.0, "half_open": 1.0, "open": 2.0}
SAME_SCRAPE_S = 0.5
COEFFICIENTS = ("step", "prefill", "seq", "context")
_SIGNALS = (
    (table.ENGINE_RUNNING, "running"),
    (table.ENGINE_WAITING, "waiting"),
    (table.ENGINE_KV, "kv_usage"),
    (table.ENGINE_HITS, "prefix_hit_ratio"),
    (table.ENGINE_PREEMPTIONS, "preemptions"),
)


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


def ask_dispatcher(metrics: GatewayMetrics, dispatcher: Dispatcher) -> None:
    """In-flight counts, queue, availability, engine signals and prices."""

    def backends() -> Iterator[BackendState]:
        return iter(dispatcher.state.backends)

    def in_flight() -> Iterator[Sample]:
        for b in backends():
            yield (b.spec.name, "prefill"), float(b.prefilling)
            yield (b.spec.name, "decode"), float(b.decoding)

    def prices() -> Iterator[Sample]:
        yield from {(b.spec.group,): b.price for b in backends()}.items()

    metrics.ask(table.IN_FLIGHT, in_flight)
    metrics.ask(table.QUEUE_DEPTH, lambda: [((), float(dispatcher.queued))])
    metrics.ask(table.BACKEND_UP, lambda: (((b.spec.name,), float(b.usable)) for b in backends()))
    metrics.ask(
        table.BREAKER,
        lambda: (((b.spec.name,), BREAKER_NUMBER[b.breaker.state]) for b in backends()),
    )
    metrics.ask(
        table.EJECTIONS,
        lambda: (((name,), float(n)) for name, n in dispatcher.state.ejected.items()),
    )
    metrics.ask(table.PRICE, prices)
    metrics.ask(
        table.FALLBACKS, lambda: ((pair, float(n)) for pair, n in dispatcher.fell_back.items())
    )
    budget = dispatcher.hedging
    if budget is not None:
        metrics.ask(
            table.HEDGES, lambda: [(("sent",), float(budget.sent)), (("won",), float(budget.won))]
        )
    metrics.ask(table.PREFIX_PROMISED, lambda: _audit(dispatcher, lambda promised, _: promised))
    metrics.ask(table.PREFIX_MISSING, lambda: _audit(dispatcher, lambda a, found: a - found))
    if dispatcher.pairing is not None:
        ask_pairing(metrics, dispatcher.pairing)
    desk = desk_of(dispatcher)
    if desk is not None:
        ask_desk(metrics, desk)
    for metric, name in _SIGNALS:
        metrics.ask(metric, partial(_signal, dispatcher, name))


def ask_pairing(metrics: GatewayMetrics, pairing: Pairing) -> None:
    """What became of requests that two backends shared."""
    metrics.ask(
        table.SHARED_REQUESTS, lambda: ((pair, float(n)) for pair, n in pairing.paired.items())
    )
    metrics.ask(table.SHARED_BROKEN, lambda: ((who, float(n)) for who, n in pairing.broken.items()))
    metrics.ask(table.KV_MOVED, lambda: [((), pairing.moved_bytes)])


def ask_desk(metrics: GatewayMetrics, desk: Desk) -> None:
    """Who waits, and what the scheduling of classes did."""

    def queued() -> Iterator[Sample]:
        for lane, waiting in desk.room.lanes.items():
            yield lane, float(len(waiting.entries))

    def events() -> Iterator[Sample]:
        for labels, count in desk.events.items():
            yield labels, float(count)

    metrics.ask(table.QUEUED, queued)
    metrics.ask(table.CLASS_EVENTS, events)
    metrics.ask(table.CLASS_ROOM, desk.learned_room)


def _audit(dispatcher: Dispatcher, figure: Callable[[int, int], int]) -> Iterator[Sample]:
    policy = dispatcher.policy
    if isinstance(policy, PrefixAudit):
        for name, (promised, found) in policy.prefix_audit.items():
            yield (name,), float(figure(promised, found))


def _signal(dispatcher: Dispatcher, name: str) -> Iterator[Sample]:
    """One signal of every backend that gives it; an unknown one has no series, never 0."""
    for backend in dispatcher.state.backends:
        value = getattr(backend.signals, name, None)
        if value is not None:
            yield (backend.spec.name,), float(value)


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


def ask_identities(
    metrics: GatewayMetrics, dispatcher: Dispatcher, card_of: Callable[[str], str]
) -> None:
    """What each backend is."""

    def infos() -> Iterator[Sample]:
        for backend in dispatcher.state.backends:
            spec = backend.spec
            told = card_of(spec.name)
            yield (spec.name, spec.group, spec.gpu, spec.engine, spec.model, told), 1.0

    metrics.ask(table.BACKEND_INFO, infos)
