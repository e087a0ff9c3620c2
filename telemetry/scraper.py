"""Visits every engine's metrics page about once a second; one hung engine delays nobody.

Each backend has a task of its own, started at a random point of the interval and jittered, so
that 500 backends make an even trickle and never a burst. A good scrape goes to the sink (in the
gateway: ``Dispatcher.scrape``); a bad one is counted, and what was known simply grows old.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from router.domain.fleet import BackendSpec
from router.domain.protocols import Clock
from router.domain.state import EngineSignals
from telemetry.engine_metrics import Reading, read
from telemetry.exposition import MAX_BYTES
from telemetry.hit_window import HitWindow
from telemetry.http_get import Fetcher, FetchError, HttpGetter
from telemetry.sglang_loads import read_loads
from telemetry.signals_report import BackendReport

Sink = Callable[[str, EngineSignals], None]
ErrorSink = Callable[[str, FetchError], None]
RestartSink = Callable[[str], None]

LOADS = "/v1/loads"
_ENDPOINTS: Mapping[str, tuple[str, ...]] = {"sglang": ("/metrics", LOADS)}
_NOT_THERE = frozenset({404, 405, 501})
JITTER = 0.1
"""Each pause is the interval give or take this share."""

MOST_BACKOFF = 5
"""A backend that keeps failing is visited this many times less often, no less."""


@dataclass(frozen=True, slots=True)
class Target:
    """One engine to visit; ``url`` is its base, with or without ``/v1``."""

    name: str
    url: str
    engine: str


def targets(backends: Iterable[BackendSpec]) -> list[Target]:
    """Every backend that has an address."""
    return [Target(b.name, b.url, b.engine) for b in backends if b.url]


@dataclass(slots=True)
class _Visit:
    """What the scraper keeps per backend."""

    target: Target
    report: BackendReport
    endpoints: tuple[str, ...]
    fetcher: Fetcher
    window: HitWindow = field(default_factory=HitWindow)
    task: asyncio.Task[None] | None = None
    asked_accelerator: bool = False


class Scraper:
    """Scrapes all targets until it is cancelled.

    Args:
        sink: called with (backend name, signals) for each good scrape; ``observed_s`` is when
            the request was sent, so whatever was dispatched later is certainly not in it.
        interval_s, timeout_s: pause between visits; deadline of one, connecting included.
        rng: spreads the visits.
        clock: tells ``observed_s``.
        fetcher: how to fetch; own connections by default.
        fetcher_of: the same for a backend of this name, where they differ.
        on_error: called with (backend name, error) for each bad scrape.
        on_restart: called with the name of a backend whose engine started anew: its prefix
            cache is cold.
        on_identity: called with the name of a backend where another engine or model answers.
        rest: how to wait for the next visit: so long at least.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        interval_s: float,
        timeout_s: float,
        rng: random.Random,
        clock: Clock,
        fetcher: Fetcher | None = None,
        fetcher_of: Callable[[str], Fetcher] | None = None,
        on_error: ErrorSink | None = None,
        on_restart: RestartSink | None = None,
        on_identity: RestartSink | None = None,
        rest: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._sink, self._on_error, self._on_restart = sink, on_error, on_restart
        self._on_identity, self._rest = on_identity, rest
        self._interval_s, self._timeout_s = interval_s, timeout_s
        self._rng, self._clock = rng, clock
        shared: Fetcher = HttpGetter() if fetcher is None else fetcher
        self._fetcher_of = fetcher_of or (lambda _: shared)
        self._visits: dict[str, _Visit] = {}
        self._group: asyncio.TaskGroup | None = None

    def add(self, target: Target) -> None:
        """Visit ``target`` from now on; a target of the same name is replaced."""
        self.remove(target.name)
        endpoints = _ENDPOINTS.get(target.engine, ("/metrics",))
        report = BackendReport(endpoint=endpoints[0], engine=target.engine)
        visit = self._visits[target.name] = _Visit(
            target, report, endpoints, self._fetcher_of(target.name)
        )
        self._start(visit)

    def remove(self, name: str) -> None:
        """Stop visiting the backend of that name, if there is one."""
        visit = self._visits.pop(name, None)
        if visit is None:
            return
        visit.fetcher.close()
        if visit.task is not None:
            visit.task.cancel()

    async def run(self) -> None:
        """Scrape until cancelled; an error of the sink ends it and is raised."""
        try:
            async with asyncio.TaskGroup() as self._group:
                for visit in self._visits.values():
                    self._start(visit)
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None
            for visit in self._visits.values():
                visit.fetcher.close()

    def signals_report(self) -> dict[str, BackendReport]:
        """What each backend really tells, by name; live objects, to be read only."""
        return {name: visit.report for name, visit in self._visits.items()}

    def _start(self, visit: _Visit) -> None:
        if self._group is not None:
            visit.task = self._group.create_task(self._keep_visiting(visit))

    async def _keep_visiting(self, visit: _Visit) -> None:
        await self._rest(self._rng.uniform(0.0, self._interval_s))
        while True:
            await self.scrape(visit.target.name)
            slower = min(1 + visit.report.consecutive_failures, MOST_BACKOFF)
            jitter = self._rng.uniform(1.0 - JITTER, 1.0 + JITTER)
            await self._rest(self._interval_s * slower * jitter)

    async def scrape(self, name: str) -> bool:
        """Visit one backend once, now; whether it gave any signal.

        Raises:
            KeyError: no such target.
        """
        visit = self._visits[name]
        sent_s = self._clock.now()
        try:
            reading = await self._fetch(visit, sent_s)
        except FetchError as error:
            self._failed(visit, error)
            return False
        await self._ask_accelerator(visit)
        self._deliver(visit, reading)
        return True

    async def _fetch(self, visit: _Visit, sent_s: float) -> Reading:
        path = visit.report.endpoint
        body = await visit.fetcher.get(
            _base(visit.target.url) + path, timeout_s=self._timeout_s, max_bytes=MAX_BYTES
        )
        problems = visit.report.problems
        if path == LOADS:
            reading = read_loads(body, sent_s, problems)
        else:
            reading = read(body, visit.target.engine, sent_s, problems)
        if not reading.known:
            raise FetchError("no_signals", f"{path} names no signal of any engine known here")
        return reading

    def _failed(self, visit: _Visit, error: FetchError) -> None:
        visit.report.failed(error.kind, str(error))
        if error.kind == "no_signals" or error.status in _NOT_THERE:
            at = visit.endpoints.index(visit.report.endpoint)
            visit.report.endpoint = visit.endpoints[(at + 1) % len(visit.endpoints)]
        if self._on_error is not None:
            self._on_error(visit.target.name, error)

    async def _ask_accelerator(self, visit: _Visit) -> None:
        """Ask an SGLang engine once what card it runs on; not to be told is no failure."""
        if visit.asked_accelerator or LOADS not in visit.endpoints:
            return
        visit.asked_accelerator = True
        try:
            body = await visit.fetcher.get(
                _base(visit.target.url) + LOADS, timeout_s=self._timeout_s, max_bytes=MAX_BYTES
            )
        except FetchError:
            return
        visit.report.accelerator = read_loads(body, 0.0).accelerator

    def _deliver(self, visit: _Visit, reading: Reading) -> None:
        if self._visits.get(visit.target.name) is not visit:
            return  # removed or replaced while the answer was on its way
        if not visit.report.succeeded(reading, reading.signals.observed_s):
            # Somebody else answers. Nothing of what was known is about it, and what it says now
            # may be of an engine on its way out: it is heard from the next visit on.
            visit.window = HitWindow()
            if self._on_identity is not None:
                self._on_identity(visit.target.name)
            return
        hit_ratio, restart = visit.window.update(reading)
        if restart:
            visit.report.restarts += 1
            if self._on_restart is not None:
                self._on_restart(visit.target.name)
        self._sink(visit.target.name, replace(reading.signals, prefix_hit_ratio=hit_ratio))


def _base(url: str) -> str:
    return url.rstrip("/").removesuffix("/v1")
