"""Engines that do exactly what a test tells them, over real sockets; and a gateway to test."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from router.config.load import MotleyConfig, load_config
from router.gateway.app import build_app
from router.gateway.asgi import Relay
from router.gateway.server import bind, server, url_of
from router.gateway.shared.board import Board

MODEL = "llama-3.1-8b"
REQUEST = json.dumps(
    {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 16}
).encode()

Raw = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Received:
    """One request as an engine got it."""

    head: str
    headers: dict[str, str]
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    client_left: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))
        await self.writer.drain()

    async def wait_for_leaving(self) -> None:
        """Return when the gateway drops the connection."""
        try:
            while await self.reader.read(65_536):
                pass
        except ConnectionError:
            pass
        self.client_left.set()


Behaviour = Callable[[Received], Awaitable[bool | None]]
"""Answers one request; returns True to keep the connection for another."""


class FakeEngine:
    """Listens on loopback and follows a script: one behaviour a request, the last for ever."""

    def __init__(self, *script: Behaviour) -> None:
        self.script = list(script)
        self.received: list[Received] = []
        self.probes: list[str] = []
        self.probe_keys: list[str] = []
        self.probe_status = 200
        self.probe_delay_s = 0.0
        self.listed: dict[str, Any] | None = {"data": []}
        self.connections = 0
        self.port = 0
        self.tls: ssl.SSLContext | None = None
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, ssl=self.tls, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        request: Received | None = None
        try:
            keep = True
            while keep:
                request = await _read_request(reader, writer)
                if request.head.startswith("GET "):
                    self.probes.append(request.head.split()[1])
                    self.probe_keys.append(request.headers.get("authorization", ""))
                    await asyncio.sleep(self.probe_delay_s)
                    keep = bool(await self._page(request.head.split()[1])(request))
                    continue
                self.received.append(request)
                behaviour = self.script.pop(0) if len(self.script) > 1 else self.script[0]
                keep = bool(await behaviour(request))
        except (asyncio.IncompleteReadError, ConnectionError):
            if request is not None:
                request.client_left.set()  # while it was being answered
        finally:
            writer.close()

    def _page(self, path: str) -> Behaviour:
        if path != "/v1/models":
            return answer(self.probe_status, b"")
        return answer(503, b"") if self.listed is None else answer(self.probe_status, self.listed)


async def _read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Received:
    raw = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    head, *lines = raw.rstrip().split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(head, headers, body, reader, writer)


# What engines do


def answer(
    status: int, body: bytes | dict[str, Any], *headers: tuple[str, str], keep: bool = True
) -> Behaviour:
    """A plain answer with a length."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def behave(request: Received) -> bool:
        lines = [f"HTTP/1.1 {status} X", f"content-length: {len(content)}"]
        if not any(name == "content-type" for name, _ in headers):
            lines.append("content-type: application/json")
        lines += [f"{name}: {value}" for name, value in headers]
        await request.send("\r\n".join(lines).encode(), b"\r\n\r\n", content)
        return keep

    return behave


def chat(text: str = "hello", prompt_tokens: int = 7, completion_tokens: int = 3) -> Behaviour:
    """A non-streamed chat completion."""
    return answer(
        200,
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": MODEL,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": "stop",
                }
            ],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
            },
        },
    )


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


def chunk(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(delta: dict[str, Any] | None = None, **more: Any) -> bytes:
    """One event of a chat stream."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": None}]
    document = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": MODEL,
        "choices": choices,
        **more,
    }
    return b"data: " + json.dumps(document).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
END = b"0\r\n\r\n"


def stream(
    tokens: Sequence[str], *, usage: dict[str, Any] | None = None, gap_s: float = 0.0
) -> Behaviour:
    """A whole chat stream: role, tokens, perhaps usage, [DONE]."""

    async def behave(request: Received) -> bool:
        await request.send(STREAM_HEAD, chunk(event({"role": "assistant", "content": ""})))
        for token in tokens:
            await asyncio.sleep(gap_s)
            await request.send(chunk(event({"content": token})))
        if usage is not None:
            await request.send(chunk(event(usage=usage)))
        await request.send(chunk(DONE), END)
        return True

    return behave


def events(*parts: bytes, then: Behaviour | None = None) -> Behaviour:
    """A stream of just these bytes, one HTTP chunk each, ended properly unless ``then``."""

    async def behave(request: Received) -> bool | None:
        await request.send(STREAM_HEAD)
        for part in parts:
            await request.send(chunk(part))
            await asyncio.sleep(0.005)
        if then is not None:
            return await then(request)
        await request.send(END)
        return True

    return behave


async def hang(request: Received) -> None:
    """Say nothing, until the gateway leaves."""
    await request.wait_for_leaving()


async def reset(request: Received) -> None:
    """Drop the connection with RST."""
    request.writer.transport.abort()


async def close(request: Received) -> None:
    """Close the connection politely, without an answer."""


async def garbage(request: Received) -> None:
    """Speak another protocol."""
    await request.send(b"\x00\x01SSH-2.0-OpenSSH_9.2\r\n\r\n")


# The gateway


class ShiftedClock:
    """Real time, which a test may move on."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now(self) -> float:
        return time.monotonic() + self.ahead_s


@dataclass
class Gateway:
    """A running gateway."""

    url: str
    relay: Relay
    clock: ShiftedClock

    async def post(
        self, path: str = "/v1/chat/completions", body: bytes | None = None, **headers: str
    ) -> httpx.Response:
        """One request, its answer read whole."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client() as client:
            return await client.post(path, content=REQUEST if body is None else body, headers=named)

    async def get(self, path: str, **headers: str) -> httpx.Response:
        async with self.client() as client:
            return await client.get(path, headers=headers)

    def client(self, **headers: str) -> httpx.AsyncClient:
        """For several requests; reading a certificate bundle each time would take 30 ms."""
        return httpx.AsyncClient(base_url=self.url, timeout=20.0, verify=False, headers=headers)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A raw socket to the gateway."""
        return await asyncio.open_connection("127.0.0.1", int(self.url.rpartition(":")[2]))

    async def ask(self, body: bytes | None = None) -> Raw:
        """Send one request over a raw socket and leave the answer unread."""
        content = REQUEST if body is None else body
        reader, writer = await self.connect()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-length: {len(content)}"
        writer.write(head.encode() + b"\r\n\r\n" + content)
        return reader, writer

    @property
    def books(self) -> dict[str, int]:
        """The dispatcher's counters (I1)."""
        core = self.relay.engine.dispatcher
        names = ("arrived", "completed", "failed", "cancelled", "rejected", "in_flight", "queued")
        return {name: getattr(core, name) for name in names}

    def assert_at_rest(self) -> None:
        """I1 and I2: everything that arrived is accounted for, and every count is back at 0."""
        books = self.books
        ended = sum(books[name] for name in ("completed", "failed", "cancelled", "rejected"))
        assert books["arrived"] == ended, books
        assert books["in_flight"] == books["queued"] == self.relay.engine.live == 0, books
        for backend in self.relay.engine.dispatcher.state.backends:
            counts = (backend.in_flight, backend.prefilling, backend.decoding)
            assert counts == (0, 0, 0), (backend.spec.name, counts)
            assert backend.pending_prefill_tokens == 0
            assert backend.context_tokens == backend.pending_output_tokens == 0.0


def fleet(*engines: FakeEngine | str, **settings: Any) -> dict[str, Any]:
    """A configuration with these engines as A100s named e0, e1, ...

    Chores that talk to the engines are off: a test's engines hear only what the test sends.
    """
    urls = [engine if isinstance(engine, str) else engine.url for engine in engines]
    reliability = {"health_interval_s": 3600.0} | settings.pop("reliability", {})
    return {
        "backends": [
            {"gpu": "a100-80", "model": MODEL, "name": f"e{n}", "url": url}
            for n, url in enumerate(urls)
        ],
        "policy": {"name": "round-robin"},
        "telemetry": {"enabled": False},
        "reliability": reliability,
        **settings,
    }


@asynccontextmanager
async def running(
    config: dict[str, Any],
    front_end: str = "protocol",
    *,
    load: Callable[[], MotleyConfig] | None = None,
    board: Board | None = None,
) -> AsyncIterator[Gateway]:
    """The gateway on a free port, under uvicorn as in service."""
    clock = ShiftedClock()
    loaded = load() if load is not None else load_config(config)
    relay = build_app(loaded, clock=clock, load=load, board=board)
    listener = bind("127.0.0.1", 0)
    web = server(relay, drain_s=1.0, front_end=front_end, tls=loaded.server.tls)
    task = asyncio.create_task(web.serve(sockets=[listener]))
    while not web.started:
        await asyncio.sleep(0.005)
    url = url_of(listener, tls=loaded.server.tls is not None)
    gateway = Gateway(url, relay, clock)
    try:
        yield gateway
    finally:
        web.should_exit = True
        await task


async def eventually(what: Callable[[], bool], within_s: float = 15.0) -> None:
    """Wait until ``what`` holds; fail after ``within_s``, which no healthy run comes near."""
    async with asyncio.timeout(within_s):
        while not what():
            await asyncio.sleep(0.002)
