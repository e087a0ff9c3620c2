"""The least that a gateway in Python can cost: parse, take the next engine, relay; nothing else.

uvloop, httptools both ways, one write each way, connections kept, round robin. No decision, no
deadline, no metric, no error but a closed connection: what Motley costs above this is Motley's,
what this costs is CPython's. Usage: ``bare_relay.py PORT ENGINE_PORTS``.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import cycle

import httptools
import uvloop


class Upstream(asyncio.Protocol):
    """One connection to an engine; carries one request at a time."""

    def __init__(self, idle: list[Upstream]) -> None:
        self._idle = idle
        self._parser = httptools.HttpResponseParser(self)
        self._whole = False
        self.transport: asyncio.Transport | None = None
        self.client: Client | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)
        client = self.client
        if client is not None:
            client.transport.write(data)  # answers are framed alike on both sides
        if self._whole:
            self._whole, self.client = False, None
            self._idle.append(self)

    def on_message_complete(self) -> None:
        self._whole = True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self.client is not None:
            self.client.transport.close()
        elif self in self._idle:
            self._idle.remove(self)


class Client(asyncio.Protocol):
    """One connection of a client; the answer's bytes go back as they came."""

    engines = cycle([(0, list[Upstream]())])
    transport: asyncio.Transport

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._whole = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)
        if self._whole:
            self._send()

    def on_message_begin(self) -> None:
        self._whole, self._url = False, b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        self._whole = True

    def _send(self) -> None:
        lines = [b"POST %b HTTP/1.1" % self._url]
        lines += [b"%b: %b" % pair for pair in self._headers]
        request = b"\r\n".join([*lines, b"", b"".join(self._parts)])
        port, idle = next(self.engines)
        if idle:
            upstream = idle.pop()
            upstream.client = self
            upstream.transport.write(request)  # type: ignore[union-attr] - it is connected
        else:
            asyncio.get_running_loop().create_task(self._dial(port, idle, request))

    async def _dial(self, port: int, idle: list[Upstream], request: bytes) -> None:
        loop = asyncio.get_running_loop()
        _, upstream = await loop.create_connection(lambda: Upstream(idle), "127.0.0.1", port)
        upstream.client = self
        upstream.transport.write(request)  # type: ignore[union-attr] - it is connected


async def serve(port: int, engines: list[int]) -> None:
    Client.engines = cycle([(engine, list[Upstream]()) for engine in engines])
    await asyncio.get_running_loop().create_server(Client, "127.0.0.1", port, backlog=2048)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), [int(port) for port in sys.argv[2].split(",")]))
