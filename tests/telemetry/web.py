"""A server on the loopback that answers with the bytes it is given, and a fetcher of no network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from telemetry.http_get import FetchError

Answer = bytes | Exception | None
"""``None`` never answers."""


def page(body: bytes | str, status: str = "200 OK", *, more: str = "") -> bytes:
    data = body.encode() if isinstance(body, str) else body
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(data)}\r\n{more}\r\n".encode() + data


@asynccontextmanager
async def serving(
    answer: Callable[[int, bytes], bytes | None], *, close: bool = False
) -> AsyncIterator[tuple[str, list[int]]]:
    """Serve ``answer(number of the request, its bytes)``; yields the URL and, per connection,
    how many requests came over it."""
    connections: list[int] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(0)
        mine = len(connections) - 1
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                data = answer(sum(connections), request)
                connections[mine] += 1
                if data is None:
                    await reader.read()  # until the client gives up
                    return
                writer.write(data)
                await writer.drain()
                if close:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", connections
    finally:
        server.close()


class Pages:
    """A ``Fetcher`` from a table of URL to answer; an answer may be a list, used in order."""

    def __init__(self, pages: dict[str, Answer | list[Answer]]) -> None:
        self.pages = pages
        self.asked: list[str] = []
        self.closed = False

    async def get(self, url: str, *, timeout_s: float, max_bytes: int) -> bytes:
        self.asked.append(url)
        answer = self.pages.get(url, FetchError("status", "HTTP 404", 404))
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if answer is None:
            await asyncio.get_running_loop().create_future()
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, bytes)
        return answer

    def close(self) -> None:
        self.closed = True
