"""Reads what the engines say of themselves, and stops believing it when it grows old.

Two ways in: the scraper, and the load that vLLM sends along with its answers (ORCA). One way out:
``Dispatcher.scrape``. A backend that has said nothing for ``telemetry.stale_after_s`` is unknown
again, and the policies are left with the router's own exact counts.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from router.config.load import MotleyConfig
from router.domain.errors import UnknownNameError
from router.domain.protocols import Clock
from router.domain.state import EngineSignals
from router.fleet_state.backend import BackendState
from router.gateway.engine import Engine
from router.gateway.engine_fetch import fetcher_for
from telemetry.orca import OrcaMerge
from telemetry.scraper import Scraper, targets

log = logging.getLogger("motley.telemetry")

LOOK_S = 1.0
FIRST_REPORT_S = 5.0
"""By now every engine that can be scraped has been, and those that cannot have shown it."""


@dataclass(slots=True)
class EngineReading:
    """Scraper, ORCA and the age of what they said.

    Attributes:
        engine: its dispatcher is told.
        config: of the gateway.
        clock: the gateway's.
        scraper, orca: the two ways in.
        card_of: the card that DCGM or NVML tells of; empty if none does.
    """

    engine: Engine
    config: MotleyConfig
    clock: Clock
    scraper: Scraper
    orca: OrcaMerge
    card_of: Callable[[str], str] = lambda _: ""
    _stale: set[str] = field(default_factory=set)

    async def keep_watching(self) -> None:
        """Tell once what each backend gives; then forget what has grown old, every second."""
        loop = asyncio.get_running_loop()
        report_s: float | None = loop.time() + FIRST_REPORT_S + self.config.telemetry.timeout_s
        while True:
            await self.engine.lull.rest(LOOK_S)
            self.forget_stale(self.clock.now())
            if report_s is not None and loop.time() >= report_s:
                report_s = None
                for line in self.lines():
                    log.info("%s", line)
                for name, report in self.scraper.signals_report().items():
                    for note in self._notes(name, report.accelerator):
                        log.warning("backend %s: %s", name, note)

    def forget_stale(self, now: float) -> None:
        """Make unknown what is older than ``telemetry.stale_after_s``; the KV size stays."""
        for backend in self.engine.dispatcher.state.backends:
            name, signals = backend.spec.name, backend.signals
            if signals is None or now - signals.observed_s <= self.config.telemetry.stale_after_s:
                self._stale.discard(name)
            elif name not in self._stale:
                self._stale.add(name)
                unknown = EngineSignals(
                    signals.observed_s, kv_capacity_tokens=signals.kv_capacity_tokens
                )
                self.engine.dispatcher.scrape(name, unknown, now)
                log.warning(
                    "backend %s: its signals are %.0f s old and no longer believed",
                    name,
                    now - signals.observed_s,
                )

    def lines(self) -> list[str]:
        """The start-up report: one line for each kind of backend that gives the same."""
        alike: dict[str, list[str]] = {}
        for name, report in self.scraper.signals_report().items():
            alike.setdefault(report.summary(), []).append(name)
        return [f"signals of {', '.join(names)}: {what}" for what, names in alike.items()]

    def described(self) -> dict[str, Any]:
        """What ``/debug/signals`` shows."""
        now = self.clock.now()
        shown: dict[str, Any] = {}
        for name, report in self.scraper.signals_report().items():
            one = report.as_dict(now)
            one["orca_headers"] = self.orca.read.get(name, 0)
            one["values"] = self._values(name, now)
            one["notes"] = [*report.notes(), *self._notes(name, report.accelerator)]
            shown[name] = one
        return shown

    def _values(self, name: str, now: float) -> dict[str, Any] | None:
        signals = _signals(self.engine, name)
        if signals is None:
            return None
        values = {f: getattr(signals, f) for f in signals.__dataclass_fields__}
        del values["observed_s"]
        return {"age_s": max(0.0, now - signals.observed_s), **values}

    def _notes(self, name: str, accelerator: str) -> list[str]:
        return [*self._gpu_notes(name, accelerator), *self._kv_notes(name)]

    def _kv_notes(self, name: str) -> list[str]:
        """Whether the engine tells a KV size that cannot be."""
        signals = _signals(self.engine, name)
        if signals is None or signals.kv_capacity_tokens is None:
            return []
        believed = self.engine.dispatcher.state.get(name).kv_capacity_tokens
        if signals.kv_capacity_tokens == believed:
            return []
        return [
            f"says that its KV cache holds {signals.kv_capacity_tokens} tokens, which is not "
            f"believed; counted with {believed}"
        ]

    def _gpu_notes(self, name: str, accelerator: str) -> list[str]:
        """Whether the engine runs on the card that the configuration says."""
        accelerator = accelerator or self.card_of(name)
        if not accelerator:
            return []
        try:
            gpu = self.engine.dispatcher.state.get(name).spec.gpu
        except UnknownNameError:
            return []
        if same_card(gpu, accelerator):
            return []
        return [f"configured as {gpu}, but runs on {accelerator!r}"]


def same_card(gpu: str, told: str) -> bool:
    """Whether a catalogue name ("a100-80") and a driver's ("NVIDIA A100-SXM4-80GB") may be one.

    The family must be there as a word; a size in the catalogue's name must be there if the driver
    tells one at all.
    """
    family, _, size = gpu.lower().partition("-")
    words = told.lower().replace("-", " ").replace("_", " ").split()
    if not any(word == family for word in words):
        return False
    sizes = [word for word in words if word.endswith("gb")]
    return not size or not sizes or f"{size}gb" in sizes


def _signals(engine: Engine, name: str) -> EngineSignals | None:
    try:
        return engine.dispatcher.state.get(name).signals
    except UnknownNameError:
        return None


def read_engines(
    engine: Engine,
    config: MotleyConfig,
    clock: Clock,
    *,
    card_of: Callable[[str], str],
    relearn: Callable[[BackendState], None],
) -> EngineReading:
    """Put scraper and ORCA together and let the engine hand over what answers tell.

    Args:
        engine: its dispatcher is told.
        config: of the gateway.
        clock: the gateway's.
        card_of: the card that DCGM or NVML tells of; empty if none does.
        relearn: called with a backend behind which another engine or model answers.
    """

    def sink(name: str, signals: EngineSignals) -> None:
        engine.dispatcher.scrape(name, signals, clock.now())
        engine.poke()

    def on_identity(name: str) -> None:
        log.warning(
            "backend %s: another engine or model answers there; its speed is learned anew", name
        )
        if engine.has(name):
            sink(name, EngineSignals(clock.now()))
            relearn(engine.dispatcher.state.get(name))

    def on_restart(name: str) -> None:
        log.warning("backend %s: its engine started anew; its prefix cache counts as cold", name)
        if engine.has(name):
            engine.dispatcher.restarted(name, clock.now())

    scraper = Scraper(
        sink,
        interval_s=config.telemetry.scrape_interval_s,
        timeout_s=config.telemetry.timeout_s,
        rng=random.Random(config.policy.seed),
        clock=clock,
        on_restart=on_restart,
        on_identity=on_identity,
        fetcher_of=lambda name: fetcher_for(engine, name),
        rest=engine.lull.rest,
    )
    for target in targets(config.fleet.backends):
        scraper.add(target)
    orca = OrcaMerge(
        lambda name: _signals(engine, name), sink, fresh_s=config.telemetry.stale_after_s
    )
    if config.telemetry.orca:
        engine.load_told = orca.see
    return EngineReading(engine, config, clock, scraper, orca, card_of)
