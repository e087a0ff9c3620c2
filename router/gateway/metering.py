"""Feeds the meter: who is in the fleet and at what price, how busy, how much power."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from router.config.load import MotleyConfig
from router.dispatcher import Dispatcher
from router.domain.errors import ConfigError
from router.domain.protocols import Clock
from router.fleet_state.backend import BackendState
from router.gateway.lull import Rest
from telemetry.exposition import MAX_BYTES, Problems
from telemetry.http_get import FetchError, HttpGetter
from telemetry.metering import Meter, Metered
from telemetry.metric_sources import ask_meter
from telemetry.metrics import GatewayMetrics
from telemetry.power import LocalCards, pick, prior_of, read_dcgm
from telemetry.router_sources import ask_identities
from telemetry.scraper import Scraper

log = logging.getLogger("motley.telemetry")

SAMPLE_S = 1.0
READ_POWER_S = 5.0
"""DCGM's exporter itself looks every 30 s by default, often set to 1 to 5 s."""

UNKNOWN_AFTER_S = 60.0


class Metering:
    """The meter of one gateway.

    Args:
        config: prices, and where power is read.
        clock: the gateway's.
        backends: the fleet as it is now.

    Raises:
        ConfigError: power of a backend that does not exist, or NVML that does not work.
        UnknownNameError: the price of a GPU that does not exist.
    """

    def __init__(
        self,
        config: MotleyConfig,
        clock: Clock,
        backends: Callable[[], Iterable[BackendState]],
    ) -> None:
        self._config, self._clock, self._backends = config, clock, backends
        self._fetcher = HttpGetter()
        self._told: dict[str, tuple[float, str, float]] = {}
        self._cards: dict[str, str] = {}
        self._complained: set[str] = set()
        self._running: dict[str, float] = {}
        self.problems = Problems()
        self.meter = Meter(lambda name: self._running.get(name, 0.0), self._measured)
        power = config.telemetry.power
        unknown = sorted(set(power) - {spec.name for spec in config.fleet.backends})
        if unknown:
            raise ConfigError(
                f"telemetry.power names the backend {unknown[0]!r}, which is not in the fleet"
            )
        for gpu in config.planner.usd_per_hour:
            config.hardware.catalog.gpu(gpu)
        local = {name: section.nvml for name, section in power.items() if section.nvml}
        self._local = LocalCards(local) if local else None

    def expose(
        self, metrics: GatewayMetrics, dispatcher: Dispatcher, scraper: Scraper | None
    ) -> None:
        """Start the meter for every backend there is, and let ``/metrics`` ask."""
        for backend in self._backends():
            self.joined(backend)
        ask_meter(metrics, self.meter)

        def card_of(name: str) -> str:
            reports = scraper.signals_report() if scraper is not None else {}
            told = reports[name].accelerator if name in reports else ""
            return told or self._cards.get(name, "")

        ask_identities(metrics, dispatcher, card_of)

    def joined(self, backend: BackendState) -> None:
        """A backend begins to cost."""
        spec = backend.spec
        gpu = self._config.hardware.catalog.gpu(spec.gpu)
        price = self._config.planner.usd_per_hour.get(spec.gpu, gpu.price_usd_per_hour)
        facts = Metered(
            model=spec.model,
            gpu=spec.gpu,
            usd_per_hour=price * spec.tensor_parallel,
            cost=backend.prior,
            power=prior_of(gpu, spec.tensor_parallel),
        )
        self.meter.add(spec.name, facts, self._clock.now())

    def left(self, name: str) -> None:
        """A backend costs no more."""
        self.meter.remove(name, self._clock.now())
        self._running.pop(name, None)

    def card_of(self, name: str) -> str:
        """The card that DCGM or NVML tells of; empty if none does."""
        return self._cards.get(name, "")

    async def keep_sampling(self, rest: Rest) -> None:
        """Book what is used, every second."""
        while True:
            await rest(SAMPLE_S)
            self.sample()

    def sample(self) -> None:
        """Book once."""
        self._running = {b.spec.name: _running(b) for b in self._backends()}
        self.meter.sample(self._clock.now())

    async def keep_reading_power(self) -> None:
        """Read the cards, every few seconds; what cannot be read falls back to the prior."""
        try:
            while True:
                await self.read_power()
                await asyncio.sleep(READ_POWER_S)
        finally:
            self._fetcher.close()

    async def read_power(self) -> None:
        """Read every source once; a slow one delays the others by no more than its timeout."""
        urls = {s.dcgm for s in self._config.telemetry.power.values() if s.dcgm}
        await asyncio.gather(*(self._read_dcgm(url) for url in sorted(urls)))
        if self._local is not None:
            told = await asyncio.to_thread(self._local.read)
            for name, (watts, card) in told.items():
                self._note(name, watts, "nvml", card)

    async def _read_dcgm(self, url: str) -> None:
        timeout_s = self._config.telemetry.timeout_s
        try:
            page = await self._fetcher.get(url, timeout_s=timeout_s, max_bytes=MAX_BYTES)
        except FetchError as error:
            self._complain(url, f"cannot read the power from {url}: {error}")
            return
        cards = read_dcgm(page, self.problems)
        for name, section in self._config.telemetry.power.items():
            if section.dcgm != url:
                continue
            found = pick(cards, [str(wanted) for wanted in section.gpus])
            if found is None:
                self._complain(name, f"{url} does not tell the power of all cards of {name}")
            else:
                self._note(name, sum(card.watts for card in found), "dcgm", found[0].name)

    def _note(self, name: str, watts: float, source: str, card: str) -> None:
        self._told[name] = (watts, source, self._clock.now())
        self._cards[name] = card

    def _measured(self, name: str) -> tuple[float, str] | None:
        told = self._told.get(name)
        if told is None or self._clock.now() - told[2] > UNKNOWN_AFTER_S:
            return None
        return told[0], told[1]

    def _complain(self, about: str, what: str) -> None:
        """Once: it would be said every five seconds."""
        if about not in self._complained:
            self._complained.add(about)
            log.warning("%s; the prior is used", what)


def _running(backend: BackendState) -> float:
    """Sequences in the engine's batch: as it says, else as the router counts."""
    signals = backend.signals
    if signals is not None and signals.running is not None:
        return float(signals.running)
    return float(min(backend.in_flight, backend.max_num_seqs))
