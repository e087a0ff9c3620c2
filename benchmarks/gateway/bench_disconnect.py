"""How long a backend keeps working after its client has left: streamed and not.

Client and engine live in this process and share its clock; the gateway is a process of its own.
The goal is 100 ms.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent))

from load import request
from mock_engines import STREAM_HEAD, TOKEN
from targets import free_port, motley

CLIENTS = 100


class Watcher(asyncio.Protocol):
    """An engine that never finishes and notes when it is left."""

    def __init__(self, begun: asyncio.Queue[None], left: asyncio.Queue[float]) -> None:
        self._begun, self._left = begun, left
        self._got = b""
        self._serving = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._got += data
        if not self._serving and self._got.startswith(b"POST") and self._got.endswith(b"}"):
            self._serving = True
            if b'"stream":true' in self._got:
                self._transport.write(STREAM_HEAD + TOKEN)  # type: ignore[attr-defined]
            self._begun.put_nowait(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self._serving:
            self._left.put_nowait(time.perf_counter())


async def measure(*, stream: bool) -> list[float]:
    """Seconds from the client's leaving to the engine's hearing of it, one client at a time."""
    begun: asyncio.Queue[None] = asyncio.Queue()
    left: asyncio.Queue[float] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    engine = await loop.create_server(lambda: Watcher(begun, left), "127.0.0.1", free_port())
    port = engine.sockets[0].getsockname()[1]
    delays: list[float] = []
    with motley([port], core=0, policy="round-robin") as gateway:
        for _ in range(CLIENTS):
            _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(request(1024, stream=stream))
            await begun.get()
            await asyncio.sleep(0.01)
            gone = time.perf_counter()
            writer.transport.abort()
            delays.append(await left.get() - gone)
    engine.close()
    return sorted(delays)


def main() -> None:
    for stream in (True, False):
        delays = [1e3 * delay for delay in asyncio.run(measure(stream=stream))]
        kind = "streamed" if stream else "not streamed"
        print(f"{kind:>13}: median {median(delays):.2f} ms, worst of {CLIENTS} {delays[-1]:.2f} ms")


if __name__ == "__main__":
    main()
