"""The state of the gateway as one snapshot a tick, for however many pages look on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from router.domain.slo import Slo
from router.fleet_state.backend import BackendState
from router.gateway.dashboard.changes import DEGRADED, Changes
from router.gateway.dashboard.traffic import Traffic
from router.gateway.dashboard.views import (
    BackendTile,
    ClassRow,
    Forecast,
    Hello,
    Moment,
    PlanView,
    RequestRow,
    Snapshot,
    Totals,
    TrialView,
    Triple,
)
from router.gateway.engine import Engine
from telemetry.accuracy import FIGURES, Accuracy, AccuracyReport, Figure
from telemetry.feedback import Feedback
from telemetry.learner import Estimate
from telemetry.slo_window import Latency, SloWindow

HISTORY = 600
"""Ticks of history sent to a page that opens: ten minutes at one a second."""

MOST_LIVE = 40
NO_PLAN = PlanView(enabled=False)


@dataclass(frozen=True, slots=True)
class Spend:
    """What one backend costs now; ``None`` where nobody knows.

    Attributes:
        usd_per_hour: price of its cards.
        watts: power of its cards.
        is_estimate: the power is worked out from the load, not measured.
    """

    usd_per_hour: float | None = None
    watts: float | None = None
    is_estimate: bool = True


@dataclass(frozen=True, slots=True)
class Sources:
    """Whom the board asks.

    Attributes:
        engine: in-flight requests and backends.
        accuracy, slos, feedback: telemetry's observers.
        targets: SLO targets by class.
        plan: the newest plan.
        trial: policies on trial.
        spend: cost and power by backend name.
        unix_s: wall clock, for times a person reads.
        version: of this software.
    """

    engine: Engine
    accuracy: Accuracy
    slos: SloWindow
    feedback: Feedback | None
    targets: Callable[[], Mapping[str, Slo]]
    unix_s: Callable[[], float]
    version: str
    plan: Callable[[], PlanView] = lambda: NO_PLAN
    spend: Callable[[], Mapping[str, Spend]] = dict
    trial: Callable[[], TrialView] = TrialView


class Board:
    """Builds snapshots and keeps the history for the charts."""

    def __init__(self, sources: Sources, traffic: Traffic) -> None:
        self._ask = sources
        self._traffic = traffic
        self._started_s = sources.engine.now()
        self.changes = Changes()
        self.history: deque[Moment] = deque(maxlen=HISTORY)

    def hello(self, snapshot: Snapshot) -> Hello:
        """What a page gets first."""
        return Hello(snapshot, tuple(self.history))

    def tick(self) -> Snapshot:
        """Take the picture of this moment."""
        ask, now = self._ask, self._ask.engine.now()
        uptime_s, unix_s = now - self._started_s, ask.unix_s()
        self._traffic.advance(now)
        tiles = tuple(self._tiles(now, uptime_s))
        plan, trial, policy = ask.plan(), ask.trial(), ask.engine.policy_name.decode()
        self.changes.compare(tiles, plan, policy, unix_s, trial.verdict)
        totals = self._totals(tiles)
        moment = self._moment(totals, now, unix_s)
        self.history.append(moment)
        groups = {tile.name: tile.group for tile in tiles}
        return Snapshot(
            at_unix_s=unix_s,
            uptime_s=uptime_s,
            version=ask.version,
            policy=policy,
            totals=totals,
            backends=tiles,
            classes=tuple(self._classes(now)),
            flow=tuple(self._traffic.flow(groups)),
            requests=(*self._live(now), *self._traffic.recent(now)),
            plan=plan,
            trial=trial,
            events=self.changes.events,
            moment=moment,
        )

    def _tiles(self, now: float, uptime_s: float) -> Iterator[BackendTile]:
        ask = self._ask
        rates, spend = self._traffic.rates(uptime_s), ask.spend()
        forecasts = ask.accuracy.report(now)
        estimates = ask.feedback.estimates() if ask.feedback else {}
        drift = ask.feedback.drift if ask.feedback else None
        degraded: dict[str, list[tuple[str, float]]] = {}
        for (name, phase), factor in (drift.degradations() if drift else {}).items():
            if factor > DEGRADED:
                degraded.setdefault(name, []).append((phase, factor))
        for backend in ask.engine.dispatcher.state.backends:
            name = backend.spec.name
            yield _tile(
                backend,
                now,
                rates.get(name, (0.0, 0.0)),
                spend.get(name, Spend()),
                estimates.get(name),
                tuple(degraded.get(name, ())),
                tuple(_forecasts(forecasts.get(name, {}))),
            )

    def _totals(self, tiles: tuple[BackendTile, ...]) -> Totals:
        d = self._ask.engine.dispatcher
        tokens_per_s = sum(tile.output_tokens_per_s for tile in tiles)
        usd = _sum([tile.usd_per_hour for tile in tiles])
        watts = _sum([tile.watts for tile in tiles])
        return Totals(
            d.arrived,
            d.completed,
            d.failed,
            d.cancelled,
            d.rejected,
            d.in_flight,
            d.queued,
            sum(tile.requests_per_s for tile in tiles),
            tokens_per_s,
            usd,
            None if usd is None or not tokens_per_s else usd / 3600.0 / tokens_per_s * 1e6,
            watts,
            None if watts is None or not tokens_per_s else watts / tokens_per_s,
        )

    def _moment(self, totals: Totals, now: float, unix_s: float) -> Moment:
        traffic = self._traffic
        return Moment(
            unix_s,
            totals.requests_per_s,
            totals.output_tokens_per_s,
            totals.in_flight,
            totals.queued,
            traffic.p99(traffic.ttft, now),
            traffic.p99(traffic.tpot, now),
            traffic.p99(traffic.e2e, now),
        )

    def _classes(self, now: float) -> Iterator[ClassRow]:
        reports, targets = self._ask.slos.report(now), self._ask.targets()
        for name in sorted(reports.keys() | targets.keys()):
            slo = targets.get(name, Slo(name))
            report = reports.get(name)
            limits = (slo.ttft_s, slo.tpot_s, slo.e2e_s)
            if report is None:
                none = (None, None, None)
                yield ClassRow(name, *limits, 0, None, 0.0, none, none, none)
            else:
                yield ClassRow(
                    name,
                    *limits,
                    report.finished,
                    report.attainment,
                    report.goodput_per_s,
                    _percentiles(report.ttft),
                    _percentiles(report.tpot),
                    _percentiles(report.e2e),
                )

    def _live(self, now: float) -> Iterator[RequestRow]:
        """The newest of those under way."""
        flights = self._ask.engine.dispatcher.flights
        for flight in flights[: -MOST_LIVE - 1 : -1]:
            request, first_s = flight.request, flight.first_token_s
            arrival_s = request.arrival_s
            later = max(0.0, flight.output_tokens - 1.0)
            e2e_s = flight.predicted_ttft_s + later * flight.predicted_tpot_s
            yield RequestRow(
                request.request_id,
                request.slo_class,
                request.model,
                flight.backend.spec.name,
                "decode" if flight.decoding else "prefill",
                max(0.0, now - arrival_s),
                request.prompt_tokens,
                0,
                None if first_s is None else first_s - arrival_s,
                None,
                flight.predicted_ttft_s if flight.predicted_ttft_s >= 0.0 else None,
                e2e_s if e2e_s >= 0.0 else None,
            )


def _tile(  # noqa: PLR0917 - one row of a table
    backend: BackendState,
    now: float,
    rates: tuple[float, float],
    spend: Spend,
    estimate: Estimate | None,
    degraded: tuple[tuple[str, float], ...],
    forecasts: tuple[Forecast, ...],
) -> BackendTile:
    spec, signals = backend.spec, backend.signals
    told = signals.kv_usage if signals else None
    believed = backend.context_tokens / max(1, backend.kv_capacity_tokens)
    learned = estimate is not None and estimate.learned > 0
    return BackendTile(
        name=spec.name,
        gpu=spec.gpu,
        cards=spec.tensor_parallel,
        engine=spec.engine,
        model=spec.model,
        group=spec.group,
        zone=spec.zone,
        state=_state(backend),
        in_flight=backend.in_flight,
        prefilling=backend.prefilling,
        decoding=backend.decoding,
        engine_waiting=signals.waiting if signals else None,
        kv_usage=min(1.0, told if told is not None else believed),
        kv_is_told=told is not None,
        kv_capacity_tokens=backend.kv_capacity_tokens,
        signal_age_s=max(0.0, now - signals.observed_s) if signals else None,
        prefill_factor=estimate.prefill if estimate and learned else None,
        prefill_deviation=estimate.prefill_deviation if estimate and learned else None,
        decode_factor=estimate.decode if estimate and learned else None,
        decode_deviation=estimate.decode_deviation if estimate and learned else None,
        degraded=degraded,
        price=backend.price,
        requests_per_s=rates[0],
        output_tokens_per_s=rates[1],
        usd_per_hour=spend.usd_per_hour,
        watts=spend.watts,
        watts_are_estimated=spend.is_estimate,
        forecasts=forecasts,
    )


def _state(backend: BackendState) -> str:
    if backend.draining:
        return "draining"
    if not backend.healthy:
        return "down"
    state = backend.breaker.state
    return "up" if state == "closed" else state


def _forecasts(reports: Mapping[Figure, AccuracyReport]) -> Iterator[Forecast]:
    for figure in FIGURES:
        report = reports.get(figure)
        if report is not None:
            yield Forecast(
                figure,
                report.count,
                report.bias,
                report.p50_error,
                report.p95_error,
                report.coverage,
            )


def _percentiles(latency: Latency) -> Triple:
    return (latency.p50, latency.p90, latency.p99)


def _sum(values: list[float | None]) -> float | None:
    """Of those known; ``None`` if none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
