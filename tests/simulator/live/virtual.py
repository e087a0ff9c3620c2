"""A loop whose time jumps from timer to timer, and HTTP that never leaves the process.

So a probe of an emulated engine takes no time, and measures it exactly: what is fitted can be held
against the truth instead of against the machine the tests run on.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import httpx

from router.domain.fleet import BackendSpec
from simulator.engine_server.build import EngineOptions, build_engine
from simulator.live.client import EngineClient

T = TypeVar("T")
UNIX_S = 1_795_209_026.0
MODEL = "llama-3.1-8b"


class _Jumping(selectors.SelectSelector):
    """Instead of sleeping it moves the loop's clock."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "the loop waits for nothing that could come"
            self.now_s += max(timeout, 0.0)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop in virtual time."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run`` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


class InProcess(httpx.AsyncBaseTransport):
    """httpx onto an ASGI application, streaming (httpx's own transport waits for the end).

    ``delay_s`` is the one-way network delay.
    """

    def __init__(self, app: Any, delay_s: float = 0.0) -> None:
        self._app, self._delay_s = app, delay_s

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        await asyncio.sleep(self._delay_s)
        exchange = _Exchange(request, body)
        exchange.task = asyncio.ensure_future(
            self._app(exchange.scope, exchange.receive, exchange.send)
        )
        try:
            start = await exchange.next()
            await asyncio.sleep(self._delay_s)
        except asyncio.CancelledError:
            exchange.leave()
            raise
        return httpx.Response(
            start["status"], headers=start["headers"], stream=_Body(exchange, self._delay_s)
        )


class _Exchange:
    def __init__(self, request: httpx.Request, body: bytes) -> None:
        self.scope = {
            "type": "http",
            "method": request.method,
            "path": request.url.path,
            "query_string": request.url.query,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
        }
        self.task: asyncio.Future[None] | None = None
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._incoming.put_nowait({"type": "http.request", "body": body, "more_body": False})
        self._sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def receive(self) -> dict[str, Any]:
        return await self._incoming.get()

    async def send(self, message: dict[str, Any]) -> None:
        self._sent.put_nowait({**message, "at_s": asyncio.get_running_loop().time()})

    async def next(self) -> dict[str, Any]:
        return await self._sent.get()

    def leave(self) -> None:
        self._incoming.put_nowait({"type": "http.disconnect"})


class _Body(httpx.AsyncByteStream):
    def __init__(self, exchange: _Exchange, delay_s: float) -> None:
        self._exchange, self._delay_s = exchange, delay_s

    async def __aiter__(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        while True:
            message = await self._exchange.next()
            await asyncio.sleep(max(0.0, message["at_s"] + self._delay_s - loop.time()))
            yield message.get("body", b"")
            if not message.get("more_body", False):
                return

    async def aclose(self) -> None:
        self._exchange.leave()


def emulated(gpu: str = "a100-80", engine: str = "vllm", **fields: Any) -> BackendSpec:
    """An engine to emulate."""
    return BackendSpec("emulated", gpu, engine, MODEL, **fields)  # type: ignore[arg-type]


async def with_client(
    spec: BackendSpec,
    use: Callable[[EngineClient], Coroutine[Any, Any, T]],
    *,
    delay_s: float = 0.0,
    options: EngineOptions | None = None,
) -> T:
    """Emulate ``spec`` and let ``use`` talk to it."""
    loop = asyncio.get_running_loop()
    app = build_engine(spec, options or EngineOptions(), loop, lambda: UNIX_S)
    transport = InProcess(app, delay_s)
    async with httpx.AsyncClient(base_url="http://engine", transport=transport) as http:
        return await use(EngineClient(http, loop.time))
