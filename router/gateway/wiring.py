"""Which parts a configuration asks for, and how they hear of each other."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from router.config.build import build_dispatcher
from router.config.load import MotleyConfig
from router.dispatcher import Dispatcher
from router.domain.errors import UnknownNameError
from router.domain.fleet import BackendSpec
from router.domain.protocols import Clock, Observer
from router.gateway.access.build import build_gate
from router.gateway.batch.build import attach_batches
from router.gateway.bookkeeping import build_books
from router.gateway.breaker_watch import BreakerWatch
from router.gateway.dashboard.board import Board
from router.gateway.dashboard.feed import Feed
from router.gateway.dashboard.sources import sources_of
from router.gateway.dashboard.traffic import Traffic
from router.gateway.engine import Engine
from router.gateway.engine_reading import EngineReading, read_engines
from router.gateway.engine_settings import engine_settings
from router.gateway.health_probe import HealthProbe
from router.gateway.instruments import Instruments, build_instruments
from router.gateway.kv_events.build import KvEvents, kv_events_of
from router.gateway.log_file import LogFile
from router.gateway.memory import Memory
from router.gateway.metering import Metering
from router.gateway.outcome_queue import OutcomeQueue
from router.gateway.pupils import Pupils
from router.gateway.reload import without_canary
from router.gateway.runtime import Chore, Runtime
from router.gateway.trial_watch import TrialWatch, ask_trial
from router.gateway.upstream import parse_address
from router.perf.length import BucketLengthPredictor
from telemetry.metric_table import KV_EVENTS
from telemetry.metrics import GatewayMetrics

if TYPE_CHECKING:
    from router.gateway.planned import Planned


def build_runtime(config: MotleyConfig, clock: Clock) -> Runtime:
    """Put everything together that lives as long as the gateway.

    Raises:
        ConfigError: a backend without a usable URL, a decision log or a traffic record that cannot
            be written, or an extra that is not installed.
    """
    runtime: Runtime | None = None
    for spec in config.fleet.backends:
        parse_address(spec.name, spec.url)
    file = LogFile(config.server.decision_log) if config.server.decision_log else None
    books = build_books(config, clock, lambda name: _spec_of(dispatcher, name))
    instruments = build_instruments(config, books.recorder)
    gate = build_gate(config, time.time)
    planned = _planned(config) if config.planner.enabled else None
    metering = Metering(config, clock, lambda: dispatcher.state.backends)
    traffic = Traffic() if config.server.dashboard else None
    demand = planned.demand if planned else None
    # A reload may change the policy section at any time.
    trial = TrialWatch(
        lambda: runtime.config.policy if runtime else config.policy,
        lambda: runtime.config.slos if runtime else config.slos,
        lambda: without_canary(runtime) if runtime else None,
    )
    watching: list[Observer | None] = [*instruments.observers, demand, metering.meter, traffic]
    outcomes = OutcomeQueue([one for one in watching if one is not None])
    kv_events = kv_events_of(config)
    at_once: list[Observer | None] = [gate, books.accounts, trial, outcomes, kv_events]
    lengths = BucketLengthPredictor()
    dispatcher = build_dispatcher(
        config,
        predictor=outcomes.teaching(lengths),
        observers=[one for one in at_once if one is not None],
        strict_context=False,
        log=file.write if file else None,
    )
    engine = Engine(dispatcher, engine_settings(config), clock.now, instruments.metrics, gate)
    books.attach(engine)
    reading = None
    if config.telemetry.enabled:
        reading = read_engines(
            engine, config, clock, card_of=metering.card_of, relearn=instruments.relearn
        )
    scraper = reading.scraper if reading is not None else None
    memory = _memory(
        lambda: runtime.config if runtime else config, engine, instruments, lengths, clock
    )
    instruments.expose(engine, scraper, clock)
    ask_trial(instruments.metrics, trial, clock.now)
    metering.expose(instruments.metrics, dispatcher, scraper)
    chores = [_probe(engine, config), *(Chore(name, work) for name, work in books.chores)]
    chores += _looking(engine, memory, metering, trial)
    chores += _hearing(kv_events, engine, instruments.metrics)
    if config.telemetry.power:
        chores.append(Chore("power", metering.keep_reading_power))
    chores += _reading_chores(reading)
    if config.telemetry.feedback:
        chores.append(Chore("feedback", lambda: instruments.keep_correcting(engine)))
    if planned is not None:
        chores += planned.attach(engine, instruments)
    if file:
        chores.append(Chore("decision log", file.keep_flushing))
    feed = None
    if traffic is not None:
        asked = sources_of(
            engine, instruments, metering, lambda: planned.planning if planned else None, trial
        )
        feed = Feed(Board(asked, traffic))
        chores.append(Chore("dashboard", partial(feed.run, engine.lull.rest)))
    runtime = Runtime(
        config=config,
        engine=engine,
        gate=gate,
        started_unix_s=int(time.time()),
        chores=chores,
        instruments=instruments,
        reading=reading,
        metering=metering,
        feed=feed,
        outcomes=outcomes,
        memory=memory,
        closing=(
            outcomes.settle,
            memory.close,
            *books.closing,
            *(one.close for one in (file, planned) if one is not None),
        ),
    )
    if planned is not None:
        runtime.planned = planned
        chores += planned.place(runtime)
    chores += attach_batches(runtime, time.time)
    return runtime


def _looking(engine: Engine, memory: Memory, metering: Metering, trial: TrialWatch) -> list[Chore]:
    """Those who look at something every so often."""
    rest, dispatcher = engine.lull.rest, engine.dispatcher
    return [
        Chore("memory", partial(memory.keep_writing, rest)),
        Chore("metering", partial(metering.keep_sampling, rest)),
        Chore("breakers", partial(BreakerWatch(dispatcher).keep_looking, rest)),
        Chore("trial", partial(trial.keep_looking, dispatcher, engine.now, rest)),
    ]


def _reading_chores(reading: EngineReading | None) -> list[Chore]:
    if reading is None:
        return []
    return [Chore("scraper", reading.scraper.run), Chore("signals", reading.keep_watching)]


def _hearing(kv_events: KvEvents | None, engine: Engine, metrics: GatewayMetrics) -> list[Chore]:
    """Let engines that publish their cache's events be heard."""
    if kv_events is None:
        return []
    metrics.ask(KV_EVENTS, kv_events.samples)
    return [Chore("KV events", kv_events.attach(engine).run)]


def _planned(config: MotleyConfig) -> Planned:
    from router.gateway.planned import Planned  # noqa: PLC0415 - SciPy and HiGHS, 40 MB, and few plan

    return Planned(config)


def _memory(
    current: Callable[[], MotleyConfig],
    engine: Engine,
    instruments: Instruments,
    lengths: BucketLengthPredictor,
    clock: Clock,
) -> Memory:
    """Know again what was learned before, and keep what is learned; a reload may change where."""
    pupils = Pupils(
        lengths,
        engine.sizer,
        instruments.feedback,
        engine.dispatcher,
        lambda: current().policy.name,
    )
    memory = Memory(
        lambda: current().telemetry.learned, pupils, instruments.metrics, clock.now, time.time
    )
    memory.follow()
    return memory


def _probe(engine: Engine, config: MotleyConfig) -> Chore:
    return Chore("health probe", HealthProbe(engine, config.reliability).run)


def _spec_of(dispatcher: Dispatcher, name: str) -> BackendSpec | None:
    try:
        return dispatcher.state.get(name).spec
    except UnknownNameError:
        return None
