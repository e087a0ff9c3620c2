"""``motley serve`` in a process of its own: what signals, limits and disks do to it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LISTENING = "0A"  # as the kernel writes it in /proc/net/tcp


@dataclass
class Served:
    """A running gateway; offers what ``client.ask`` needs.

    Attributes:
        url: of its door.
        process: it, or the parent of its workers.
        said: lines on stderr after the greeting.
    """

    url: str
    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", int(self.url.rpartition(":")[2]))

    async def get(self, path: str) -> str:
        def read() -> str:
            with urllib.request.urlopen(self.url + path, timeout=20) as answer:
                text: str = answer.read().decode()
                return text

        return await asyncio.to_thread(read)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        return await asyncio.to_thread(self.process.wait, 30)

    def workers(self) -> list[int]:
        """Processes that it started."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def listening(self) -> int:
        """How many of its processes take connections: each has a socket of its own."""
        door = f":{int(self.url.rpartition(':')[2]):04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(row[1].endswith(door) and row[3] == LISTENING for row in rows)


@asynccontextmanager
async def served(
    config: dict[str, Any], folder: Path, *, before: Callable[[], None] | None = None
) -> AsyncIterator[Served]:
    """Start it on a free port and wait until it serves; nothing of it outlives the block.

    Args:
        config: ``server.port`` is set to 0, unless it is given.
        folder: for the configuration, ``fleet.yaml``.
        before: called in the new process, for limits.
    """
    path = folder / "fleet.yaml"
    config.setdefault("server", {}).setdefault("port", 0)
    path.write_text(json.dumps(config))
    command = [sys.executable, "-c", "from router.cli.main import main; main()", "serve"]
    process = subprocess.Popen(
        [*command, "-c", str(path)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        preexec_fn=before,  # noqa: PLW1509 - it sets a limit and nothing else
    )
    assert process.stderr is not None
    try:
        greeting = await asyncio.to_thread(process.stderr.readline)
        assert " at http" in greeting, greeting + process.stderr.read()
        gate = Served(greeting.split(" at ")[1].split("/v1")[0], process)
        reading = threading.Thread(target=_keep, args=(process, gate.said), daemon=True)
        reading.start()
        await _until_ready(gate.url)
        yield gate
    finally:
        for pid in Served("", process).workers() if process.poll() is None else []:
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()


def _keep(process: subprocess.Popen[str], said: list[str]) -> None:
    assert process.stderr is not None
    said.extend(process.stderr)


async def _until_ready(url: str) -> None:
    def ready() -> bool:
        try:
            return bool(urllib.request.urlopen(f"{url}/health", timeout=5).status == 200)
        except (urllib.error.URLError, ConnectionError):
            return False

    end_s = time.monotonic() + 30
    while not await asyncio.to_thread(ready):
        assert time.monotonic() < end_s, "the gateway never answered"
        await asyncio.sleep(0.05)
