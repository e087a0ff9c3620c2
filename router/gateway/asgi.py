"""The front end for any ASGI server: hot POST paths go to the relay, the rest to FastAPI.

No middleware and no ``StreamingResponse`` on the hot path: measured, FastAPI's stack costs 69 us
a request and ``StreamingResponse`` another 470 us.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from router.gateway import door as at_door
from router.gateway.anthropic_errors import spoken
from router.gateway.body_limit import bounded
from router.gateway.door import HOT_PATHS, Door, refusal_headers, upload_timeout
from router.gateway.engine import Engine
from router.gateway.exchange import Exchange
from router.gateway.problems import Problem
from router.gateway.wire import Call, Headers

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

HIGH_WATER_BYTES = 65_536
LOW_WATER_BYTES = 16_384
_PATH = ("utf-8", "surrogateescape")


class AsgiClient:
    """Collects what the engine writes; the endpoint's own coroutine sends it.

    Back-pressure: beyond ``HIGH_WATER_BYTES`` unsent the exchange is paused, and so is the
    backend, by TCP.
    """

    __slots__ = ("_cut", "_ended", "_exchange", "_head", "_parts", "_paused", "_size", "_waiter")

    def __init__(self) -> None:
        self._head: Message | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._ended = self._cut = self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._exchange: Exchange | None = None

    # ``seams.Client``

    def start(self, status: int, headers: Headers) -> None:
        """Status and headers."""
        self._head = {"type": "http.response.start", "status": status, "headers": headers}
        self._wake()

    def write(self, data: bytes) -> None:
        """Some of the body."""
        self._parts.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER_BYTES and not self._paused and self._exchange is not None:
            self._paused = True
            self._exchange.pause()
        self._wake()

    def end(self) -> None:
        """The answer is complete."""
        self._ended = True
        self._wake()

    def raw_sink(self) -> None:
        """The server frames the body."""

    def cut(self) -> None:
        """Send what there is and return without an end, so that the server cuts the line."""
        self._cut = True
        self._wake()

    # For the endpoint

    async def serve(self, exchange: Exchange, send: Send) -> None:
        """Send everything until the end."""
        self._exchange = exchange
        loop = asyncio.get_running_loop()
        while True:
            if not (self._head or self._parts or self._ended or self._cut):
                self._waiter = loop.create_future()
                await self._waiter
            if self._head is not None:
                head, self._head = self._head, None
                await send(head)
            if await self._send_body(send):
                return

    async def _send_body(self, send: Send) -> bool:
        parts, self._parts = self._parts, []
        last, cut = self._ended, self._cut
        if parts or last:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            await send({"type": "http.response.body", "body": data, "more_body": not last})
            self._size -= len(data)
            if self._paused and self._size < LOW_WATER_BYTES and self._exchange is not None:
                self._paused = False
                self._exchange.resume()
        return last or (cut and not self._parts)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Relay:
    """The ASGI application in front of everything.

    Args:
        engine: relays.
        door: who and what is let in.
        rest: the ASGI application for every other path, and for the lifespan.
        on_stop: ends the streams of the gateway's own when the server is told to stop.
    """

    def __init__(
        self,
        engine: Engine,
        door: Door,
        rest: AsgiApp,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self.engine = engine
        self.door = door
        self.on_stop = on_stop
        self.on_drain: Callable[[], None] = lambda: None
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "http":
            scope = plain_path(scope)
            path = scope["path"].encode(*_PATH)
            if scope["method"] == "POST" and path in HOT_PATHS:
                await self._relay(path, scope, receive, send)
                return
        await self._rest(scope, bounded(scope, receive, self.door.max_body_bytes), send)

    async def _relay(self, path: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        headers: Headers = scope["headers"]
        call = self.door.call(path, scope["query_string"], headers, dict(headers))
        problem = self.door.refusal(call)
        body = problem if problem is not None else await self._body(receive)
        if body is None:
            return
        if isinstance(body, Problem):
            await _refuse(send, receive, spoken(body, path), call.request_id)
            return
        call.body = body
        del body  # the call lets go of it once an answer has begun
        await self._exchange(call, receive, send)

    async def _body(self, receive: Receive) -> bytes | Problem | None:
        """The whole body, why not, or ``None`` if the client left while sending it."""
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            body: bytes = message.get("body", b"")
            return body if len(body) <= self.door.max_body_bytes else self.door.too_large()
        return await _rest_of_body(message, receive, self.door)

    async def _exchange(self, call: Call, receive: Receive, send: Send) -> None:
        client = AsgiClient()
        exchange = self.engine.open(call, client)
        watch = asyncio.get_running_loop().create_task(_watch(receive, exchange, client))
        try:
            await client.serve(exchange, send)
        except asyncio.CancelledError:
            # The drain deadline: returning cuts the line, raising would be logged as a bug too.
            pass
        finally:
            exchange.client_left()
            watch.cancel()


def plain_path(scope: Scope) -> Scope:
    """A client's call with a slash too many is meant as the one without.

    A redirect would have it sent twice, and from behind TLS it would lead to ``http://``.
    """
    path: str = scope["path"]
    plain = path.rstrip("/")
    if plain == path or not (path.startswith("/v1/") or plain.encode(*_PATH) in HOT_PATHS):
        return scope
    return {**scope, "path": plain}


async def _watch(receive: Receive, exchange: Exchange, client: AsgiClient) -> None:
    """Wait for the client to leave; then the backend is told at once."""
    while (await receive())["type"] != "http.disconnect":
        pass
    exchange.client_left()
    client.cut()


async def _rest_of_body(first: Message, receive: Receive, door: Door) -> bytes | Problem | None:
    loop = asyncio.get_running_loop()
    parts: list[bytes] = []
    size = 0
    message = first
    try:
        async with asyncio.timeout(at_door.UPLOAD_IDLE_S) as patience:
            while message["type"] == "http.request":
                part: bytes = message.get("body", b"")
                parts.append(part)
                size += len(part)
                if size > door.max_body_bytes:
                    return door.too_large()
                if not message.get("more_body", False):
                    return b"".join(parts)
                message = await receive()
                patience.reschedule(loop.time() + at_door.UPLOAD_IDLE_S)
    except TimeoutError:
        return upload_timeout()
    return None


async def _refuse(send: Send, receive: Receive, problem: Problem, request_id: str) -> None:
    """Answer without using the rest; the connection is closed after it.

    What the client is still sending is read and dropped for a moment: closing at once would
    reset the connection, and the client might never see the answer.
    """
    headers = refusal_headers(problem, request_id)
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": problem.body(), "more_body": True})
    try:
        async with asyncio.timeout(at_door.LINGER_S):
            while (await receive()).get("more_body", False):
                pass
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})
