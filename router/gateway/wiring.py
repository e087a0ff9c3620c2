"""Which parts a configuration asks for, and how they hear of each other."""

from __future__ import annotations

import random
import time
from functools import partial

from router.config.build import build_dispatcher
from router.config.load import MotleyConfig
from router.domain.protocols import Clock
from router.domain.state import EngineSignals
from router.gateway.auth import Keyring
from router.gateway.engine import Engine, EngineSettings
from router.gateway.health_probe import HealthProbe
from router.gateway.instruments import build_instruments
from router.gateway.limits import Limits
from router.gateway.log_file import LogFile
from router.gateway.planning import Costs, Demand, Planning, ReportingPlanner
from router.gateway.runtime import Chore, Runtime
from router.gateway.upstream import parse_address
from telemetry.http_get import HttpGetter
from telemetry.scraper import Scraper, targets


def build_runtime(config: MotleyConfig, clock: Clock) -> Runtime:
    """Put everything together that lives as long as the gateway.

    Raises:
        ConfigError: a backend without a usable URL, or a decision log that cannot be written.
    """
    for spec in config.fleet.backends:
        parse_address(spec.name, spec.url)
    path = config.server.decision_log
    file = LogFile(path) if path else None
    instruments = build_instruments(config)
    demand = Demand(config.planner.window_s) if config.planner.enabled else None
    dispatcher = build_dispatcher(
        config,
        observers=[*instruments.observers, *([demand] if demand else [])],
        strict_context=False,
        log=file.write if file else None,
    )
    engine = Engine(dispatcher, _settings(config), clock.now, instruments.metrics)
    scraper = _scraper(engine, config, clock) if config.telemetry.enabled else None
    instruments.expose(engine, scraper, clock)
    chores = [_probe(engine, config)]
    if scraper is not None:
        chores.append(Chore("scraper", scraper.run))
    if config.telemetry.feedback:
        chores.append(Chore("feedback", lambda: instruments.keep_correcting(engine)))
    if demand is not None:
        planning = Planning(engine, config.planner, demand, partial(_planner, config))
        chores.append(Chore("planner", planning.run))
    if file:
        chores.append(Chore("decision log", file.keep_flushing))
    return Runtime(
        config=config,
        engine=engine,
        keyring=Keyring(config.server.api_keys),
        started_unix_s=int(time.time()),
        chores=chores,
        instruments=instruments,
        scraper=scraper,
        closing=(file.close,) if file else (),
    )


def _settings(config: MotleyConfig) -> EngineSettings:
    times = config.reliability
    return EngineSettings(
        limits=Limits(
            connect_s=times.connect_timeout_s,
            first_byte_s=times.first_byte_timeout_s,
            idle_s=times.idle_timeout_s,
            total_s=times.total_timeout_s,
            retries=times.max_retries,
        ),
        policy_name=config.policy.name,
        aliases=config.aliases,
        slo_classes=frozenset(config.slos),
        keeps_credentials=bool(config.server.api_keys),
    )


def _planner(config: MotleyConfig, costs: Costs) -> ReportingPlanner:
    from solver.planner import RollingPlanner  # noqa: PLC0415 - a second, and few plan

    return RollingPlanner(config.planner, slos=config.slos, hardware=config.hardware, costs=costs)


def _probe(engine: Engine, config: MotleyConfig) -> Chore:
    return Chore("health probe", HealthProbe(engine, config.reliability, HttpGetter()).run)


def _scraper(engine: Engine, config: MotleyConfig, clock: Clock) -> Scraper:
    def sink(name: str, signals: EngineSignals) -> None:
        engine.dispatcher.scrape(name, signals, clock.now())
        engine.poke()

    scraper = Scraper(
        sink,
        interval_s=config.telemetry.scrape_interval_s,
        timeout_s=config.telemetry.timeout_s,
        rng=random.Random(config.policy.seed),
        clock=clock,
    )
    for target in targets(config.fleet.backends):
        scraper.add(target)
    return scraper
