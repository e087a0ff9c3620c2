"""Several worker processes on one machine, behind one port (SO_REUSEPORT).

The parent serves nothing: it holds the port, starts the workers, starts again those that die,
passes signals on, and keeps the board through which they share their state unless Redis does.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from router.gateway.shared.hub import Hub
from router.gateway.shared.memory_board import Wall

log = logging.getLogger("motley.workers")

VARIABLE = "MOTLEY_WORKER"
"""Tells a process that it is a worker, and which."""
SHORT_LIFE_S = 5.0
MOST_SHORT_LIVES = 3
BAD_INPUT = 2


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker must know.

    Attributes:
        index: from 0.
        port: to listen on, together with the others.
        hub: path of the hub's socket; empty where Redis shares.
        family: process id of the parent, so that names of replicas are unique.
    """

    index: int
    port: int
    hub: str
    family: int

    @property
    def name(self) -> str:
        """Of the replica, on this machine."""
        return f"{os.uname().nodename}-{self.family}-{self.index}"


def this_worker() -> Worker | None:
    """Which worker this process is; ``None`` if it is none."""
    told = os.environ.get(VARIABLE)
    return Worker(**json.loads(told)) if told else None


def own_file(path: str, worker: Worker | None) -> str:
    """A file that only one process can write: ``name-0.jsonl``, ``name-1.jsonl``."""
    if worker is None:
        return path
    whole = Path(path)
    return str(whole.with_name(f"{whole.stem}-{worker.index}{whole.suffix}"))


def run_workers(
    count: int, port: int, *, arguments: Sequence[str], hub: bool, stale_after_s: float
) -> int:
    """Run the workers until told to stop.

    Args:
        count: how many.
        port: that the caller has bound with SO_REUSEPORT, so that nobody else takes it.
        arguments: of the command line, for the workers.
        hub: whether to keep a board for them.
        stale_after_s: how long the facts of a worker that died are believed.

    Returns:
        The exit code: 0, or that of a worker that cannot run.
    """
    with tempfile.TemporaryDirectory(prefix="motley-") as folder:
        path = str(Path(folder) / "hub") if hub else ""
        wall = Wall(time.monotonic, stale_after_s)
        return asyncio.run(_Family(count, port, path, arguments).run(wall))


class _Family:
    def __init__(self, count: int, port: int, hub: str, arguments: Sequence[str]) -> None:
        self._workers = [Worker(n, port, hub, os.getpid()) for n in range(count)]
        self._hub = hub
        self._command = [sys.executable, "-c", "from router.cli.main import main; main()"]
        self._command += arguments
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._code = 0

    async def run(self, wall: Wall) -> int:
        hub = Hub(wall, self._hub) if self._hub else None
        if hub is not None:
            await hub.start()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._pass_on, signal.SIGHUP)
        await asyncio.gather(*(self._keep(worker) for worker in self._workers))
        if hub is not None:
            await hub.stop()
        return self._code

    async def _keep(self, worker: Worker) -> None:
        """Start a worker, and again when it dies."""
        short_lives = 0
        while not self._stopping.is_set():
            began_s = time.monotonic()
            code = await self._live(worker)
            if self._stopping.is_set():
                return
            short_lives = short_lives + 1 if time.monotonic() - began_s < SHORT_LIFE_S else 0
            if code == BAD_INPUT or short_lives >= MOST_SHORT_LIVES:
                log.error("worker %d cannot run (exit code %d); stopping all", worker.index, code)
                self._code = code if code > 0 else 1
                self._stop()
                return
            log.error("worker %d ended with %d and is started again", worker.index, code)
            await asyncio.sleep(0.2 * 2**short_lives)

    async def _live(self, worker: Worker) -> int:
        environment = {**os.environ, VARIABLE: json.dumps(asdict(worker))}
        process = await asyncio.create_subprocess_exec(
            *self._command, env=environment, start_new_session=True
        )
        self._running[worker.index] = process
        if self._stopping.is_set():
            process.terminate()
        code = await process.wait()
        del self._running[worker.index]
        return code

    def _stop(self) -> None:
        self._stopping.set()
        self._pass_on(signal.SIGTERM)

    def _pass_on(self, number: signal.Signals) -> None:
        for process in self._running.values():
            process.send_signal(number)
