"""What lives as long as the gateway: the engine and the chores beside it.

Started and stopped by the application's lifespan; nothing outlives it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from router.config.load import MotleyConfig
from router.domain.fleet import BackendSpec
from router.fleet_state.backend import BackendState
from router.gateway.access.gate import Gate
from router.gateway.batch.runner import Runner
from router.gateway.dashboard.feed import Feed
from router.gateway.engine import Engine
from router.gateway.engine_reading import EngineReading
from router.gateway.instruments import Instruments
from router.gateway.memory import Memory
from router.gateway.metering import Metering
from router.gateway.outcome_queue import OutcomeQueue
from telemetry.scraper import Scraper

if TYPE_CHECKING:
    from router.gateway.discovery.roster import Roster
    from router.gateway.planned import Planned
    from router.gateway.reload import Reloader
    from router.gateway.shared.sharing import Sharing

log = logging.getLogger("motley.gateway")


@dataclass(frozen=True, slots=True)
class Chore:
    """Something that runs beside the requests until it is cancelled.

    Attributes:
        name: for the log.
        run: called once, when the application starts.
    """

    name: str
    run: Callable[[], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class Runtime:
    """One gateway.

    Attributes:
        config: as loaded, and as reloaded since.
        engine: relays.
        gate: whom to let in.
        started_unix_s: wall-clock start, for ``created`` in the model list.
        chores: scraper, health probe, feedback, planner.
        instruments: everything that watches; answers ``/metrics``.
        reading: reads the engines; ``None`` where the configuration forbids it.
        metering: keeps the bills.
        memory: keeps what was learned over a restart.
        outcomes: those that the instruments have not heard of yet.
        feed: feeds the live page; ``None`` where the configuration forbids it.
        roster: who is in the fleet, by source; set by ``operating.attach``.
        reloader: reads the configuration again; ``None`` where it did not come from a file.
        sharing: exchanges with other replicas, if there are any.
        draining: whether the gateway was told to stop.
        admin_url: where the admin surface is, if it has a port of its own.
        batches: works batches off; ``None`` unless the configuration asks for it.
        closing: called last, in order: files to close.
        planned: the planner's corner; ``None`` where the configuration has none.
    """

    config: MotleyConfig
    engine: Engine
    gate: Gate
    started_unix_s: int
    chores: Sequence[Chore]
    instruments: Instruments
    reading: EngineReading | None
    metering: Metering
    outcomes: OutcomeQueue
    memory: Memory
    feed: Feed | None = None
    batches: Runner | None = None
    closing: Sequence[Callable[[], None]] = ()
    roster: Roster | None = None
    reloader: Reloader | None = None
    sharing: Sharing | None = None
    draining: bool = False
    admin_url: str = ""
    planned: Planned | None = None

    @property
    def scraper(self) -> Scraper | None:
        """Scrapes the engines."""
        return None if self.reading is None else self.reading.scraper

    def add_backend(self, spec: BackendSpec) -> BackendState:
        """A backend joins the fleet.

        Raises:
            ConfigError: the name is taken, or the model does not fit.
        """
        self.engine.dispatcher.add_backend(spec, self.engine.now())
        backend = self.engine.dispatcher.state.get(spec.name)
        self.instruments.joined(backend, self.scraper)
        self.metering.joined(backend)
        self.engine.poke()
        return backend

    def remove_backend(self, name: str) -> BackendState:
        """A backend leaves; what is under way there runs to its end.

        Raises:
            UnknownNameError: there is none of this name.
        """
        backend = self.engine.dispatcher.state.get(name)
        self.engine.dispatcher.remove_backend(name, self.engine.now())
        self.engine.forget(name)
        self.instruments.left(name, self.scraper)
        self.metering.left(name)
        if self.reading is not None:
            self.reading.orca.forget(name)
        return backend

    def await_model(self, model: str) -> None:
        """Another backend of this model is likely to come: it is not unknown yet."""
        grace_s = self.config.discovery.grace_s
        self.engine.await_model(model, self.engine.now() + grace_s)

    def drain_backend(self, name: str) -> None:
        """Nothing new goes to this backend."""
        self.engine.dispatcher.drain(name, self.engine.now())

    def resume_backend(self, name: str) -> None:
        """A draining backend stays after all."""
        self.engine.dispatcher.resume(name, self.engine.now())
        self.engine.poke()

    def begin_draining(self) -> None:
        """Told to stop: ``/ready`` says no from now on."""
        if not self.draining:
            log.info("draining: %d requests under way", self.engine.live)
        self.draining = True

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the chores; leave with everything stopped and every counter at rest."""
        tasks = [asyncio.create_task(chore.run(), name=chore.name) for chore in self.chores]
        for task in tasks:
            task.add_done_callback(_report)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.engine.close()
            for close in self.closing:
                close()


def _report(task: asyncio.Task[None]) -> None:
    """A chore that died is no reason to stop serving, and every reason to be told."""
    if not task.cancelled() and task.exception() is not None:
        log.error("%s stopped working", task.get_name(), exc_info=task.exception())
