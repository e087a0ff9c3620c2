"""The state of the gateway as one snapshot a tick, for however many pages look on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from router.domain.slo import Slo
from router.fleet_state.backend import BackendState
from router.gateway.dashboard.changes import DEGRADED, Changes
from router.gateway.dashboard.tiles import Spend, state_of, tile_of
from router.gateway.dashboard.traffic import Traffic
from router.gateway.dashboard.views import (
    BackendTile,
    ClassRow,
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
from telemetry.accuracy import Accuracy
from telemetry.feedback import Feedback
from telemetry.slo_window import Latency, SloWindow

HISTORY = 600
"""Ticks of history sent to a page that opens: ten minutes at one a second."""

MOST_LIVE = 40
NO_PLAN = PlanView(enabled=False)


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


@dataclass(frozen=True, slots=True)
class _Known:
    """A backend, as far as it is compared."""

    name: str
    state: str
    degraded: tuple[tuple[str, float], ...]


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

    def tick(self) -> None:
        """Keep what the charts and the events need of this moment, which is little."""
        ask, traffic = self._ask, self._traffic
        now, unix_s = ask.engine.now(), ask.unix_s()
        traffic.advance(now)
        fleet = {
            backend.spec.name: _Known(backend.spec.name, state_of(backend), degraded)
            for backend, degraded in self._backends()
        }
        plan, trial, policy = ask.plan(), ask.trial(), ask.engine.policy_name.decode()
        self.changes.compare([*fleet.values()], plan, policy, unix_s, trial.verdict)
        requests_per_s, tokens_per_s = traffic.totals(fleet, now - self._started_s)
        moment = Moment(
            unix_s,
            requests_per_s,
            tokens_per_s,
            ask.engine.dispatcher.in_flight,
            ask.engine.dispatcher.queued,
            traffic.p99(traffic.ttft, now),
            traffic.p99(traffic.tpot, now),
            traffic.p99(traffic.e2e, now),
        )
        self.history.append(moment)

    def picture(self) -> Snapshot:
        """All of this moment, for who looks on; the charts' newest point is the last tick's."""
        if not self.history:
            self.tick()
        ask, now = self._ask, self._ask.engine.now()
        uptime_s, unix_s = now - self._started_s, ask.unix_s()
        self._traffic.advance(now)
        tiles = tuple(self._tiles(now, uptime_s))
        groups = {tile.name: tile.group for tile in tiles}
        return Snapshot(
            at_unix_s=unix_s,
            uptime_s=uptime_s,
            version=ask.version,
            policy=ask.engine.policy_name.decode(),
            totals=self._totals(tiles),
            backends=tiles,
            classes=tuple(self._classes(now)),
            flow=tuple(self._traffic.flow(groups)),
            requests=(*self._live(now), *self._traffic.recent(now)),
            plan=ask.plan(),
            trial=ask.trial(),
            events=self.changes.events,
            moment=self.history[-1],
        )

    def _backends(self) -> Iterator[tuple[BackendState, tuple[tuple[str, float], ...]]]:
        """Each with the phases that have become slower, and how many times as long they take."""
        drift = self._ask.feedback.drift if self._ask.feedback else None
        degraded: dict[str, tuple[tuple[str, float], ...]] = {}
        for (name, phase), factor in (drift.degradations() if drift else {}).items():
            if factor > DEGRADED:
                degraded[name] = (*degraded.get(name, ()), (phase, factor))
        for backend in self._ask.engine.dispatcher.state.backends:
            yield backend, degraded.get(backend.spec.name, ())

    def _tiles(self, now: float, uptime_s: float) -> Iterator[BackendTile]:
        ask = self._ask
        rates, spend = self._traffic.rates(uptime_s), ask.spend()
        forecasts = ask.accuracy.report(now)
        estimates = ask.feedback.estimates() if ask.feedback else {}
        for backend, degraded in self._backends():
            name = backend.spec.name
            yield tile_of(
                backend,
                now,
                rates.get(name, (0.0, 0.0)),
                spend.get(name, Spend()),
                estimates.get(name),
                degraded,
                forecasts.get(name, {}),
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


def _percentiles(latency: Latency) -> Triple:
    return (latency.p50, latency.p90, latency.p99)


def _sum(values: list[float | None]) -> float | None:
    """Of those known; ``None`` if none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
