"""A head that differs from a known one in its length only is not parsed; nobody can tell."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.server import ServerState

from router.gateway.access.gate import Gate
from router.gateway.access.ring import Ring
from router.gateway.door import Door
from router.gateway.hot_http import HotHttp
from router.gateway.known_heads import MOST, Head, KnownHeads, known_by
from router.gateway.problems import Problem
from router.gateway.wire import Call
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import MODEL, chat, fleet, running

LINES = [
    b"host: a",
    b"Host: b",
    b"content-type: application/json",
    b"Content-Type:text/plain",
    b"authorization: Bearer x",
    b"X-Motley-Class:  bulk ",
    b"connection: close",
    b"connection: keep-alive, x-motley-class",
    b"x-request-id: r-1",
    b"transfer-encoding: chunked",
    b"expect: 100-continue",
    b"upgrade: h2c",
    b"content-length: 3",
    b"x-long: " + b"y" * 200,
    b"no colon",
    b" folded",
    b"x-lf: 1\ncontent-length: 7",
    b"",
]
LENGTH_LINES = [
    b"content-length: %d",
    b"Content-Length: %d",
    b"CONTENT-LENGTH:%d",
    b"content-length: 0%d",
]
TARGETS = [b"POST /v1/chat/completions", b"POST /v1/embeddings?a=b", b"GET /v1/chat/completions"]


class Engine:
    """Notes what it is asked and answers at once."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.ready: list[Any] = []

    def prepare(self, call: Call, client: Any) -> tuple[Call, Any]:
        self.ready.append((call, client))
        return self.ready[-1]

    def open(self, call: Call, client: Any, ready: Any = None) -> None:
        if ready is not None:
            assert ready[0] is call
            assert ready[1] is client
            self.ready.remove(ready)  # nobody opens it twice
        headers = [pair for pair in call.headers if pair[0] != b"content-length"]
        named = {k: v for k, v in call.named.items() if k != b"content-length"}
        asked = (call.path, call.query, headers, named, call.generates, bytes(call.body))
        self.asked.append(asked)
        client.start(200, [(b"content-length", b"2")])
        client.write(b"ok")
        client.end()


class Socket:
    def __init__(self) -> None:
        self.sent, self.closed = b"", False

    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def pause_reading(self) -> None:
        """A pipelined request waits."""

    resume_reading = pause_reading


class Front:
    """One connection to the fast front end."""

    def __init__(self, door: Door) -> None:
        async def nobody(scope: Any, receive: Any, send: Any) -> None:
            """What is not hot goes to an application that says nothing."""

        self.engine, self.socket = Engine(), Socket()
        config = uvicorn.Config(nobody, ws="none", lifespan="off", log_config=None)
        config.load()
        make: Any = partial(HotHttp, self.engine, door)
        self.http = make(config=config, server_state=ServerState(), app_state={})
        self.http.connection_made(self.socket)

    def hear(self, data: bytes) -> None:
        if not self.socket.closed:
            self.http.data_received(data)

    @property
    def told(self) -> Any:
        return self.engine.asked, self.socket.closed, self.socket.sent.count(b"HTTP/1.1 ")


def head(target: bytes, lines: list[bytes], length_line: bytes, at: int, body: bytes) -> bytes:
    lines = [*lines[:at], length_line % len(body), *lines[at:]]
    return b"\r\n".join([target + b" HTTP/1.1", *lines, b"", b""]) + body


def a_door(limit: int = 1000) -> Door:
    return Door(Gate(Ring({}), {}, lambda: 0.0), limit)


@given(
    target=st.sampled_from(TARGETS),
    lines=st.lists(st.sampled_from(LINES), max_size=4),
    length_line=st.sampled_from(LENGTH_LINES),
    at=st.integers(0, 4),
    bodies=st.lists(st.tuples(st.binary(max_size=12), st.booleans()), min_size=2, max_size=5),
)
def test_whatever_is_sent_a_head_that_is_known_is_read_as_one_that_is_not(
    target: bytes, lines: list[bytes], length_line: bytes, at: int, bodies: list[Any]
) -> None:
    """Nor whether it comes again at once, or another one between."""

    async def compare() -> None:
        knowing, parsing = Front(a_door()), Front(a_door())
        parsing.http.door.heads.learn = lambda key, kept: None
        for body, other in bodies:
            for front in (knowing, parsing):
                own = [b"x-other: 1", *lines] if other else lines
                front.hear(head(target, own, length_line, at, body))
            assert knowing.told == parsing.told

    asyncio.run(compare())


def test_it_is_known_from_the_second_time_on_over_any_connection() -> None:
    async def ask() -> None:
        door = a_door()
        for n, body in enumerate((b"{}", b'{"a": 1}', b"")):
            front = Front(door)
            front.http.parser = front.http.parser if n == 0 else None  # who parses now fails
            front.hear(head(TARGETS[0], LINES[:1], LENGTH_LINES[0], 1, body))
            assert front.engine.asked[-1][-1] == body
        assert len(door.heads) == 1

    asyncio.run(ask())


def test_a_request_comes_into_what_was_made_ready_for_it() -> None:
    async def ask() -> None:
        front = Front(a_door())
        ready = []
        for line in (LINES[0], LINES[0], LINES[1], LINES[1], LINES[0]):
            ready.append(len(front.engine.ready))
            front.hear(head(TARGETS[0], [line], LENGTH_LINES[0], 1, b"{}"))
        # The first of each is parsed, the second is the first known; another one between is new.
        assert ready == [0, 0, 1, 1, 2]
        assert [asked[2] for asked in front.engine.asked] == [
            [(b"host", b"a")],
            [(b"host", b"a")],
            [(b"host", b"b")],
            [(b"host", b"b")],
            [(b"host", b"a")],
        ]
        ids = {client._call.request_id for _, client in front.engine.ready}
        assert len(ids) == len(front.engine.ready)
        cycle = front.http._ready
        front.http.connection_lost(None)
        assert front.http._ready is cycle.ready is None, "nothing is left that refers to itself"

    asyncio.run(ask())


def test_a_body_that_is_too_large_is_refused_with_a_known_head_too() -> None:
    async def ask() -> None:
        front = Front(a_door(limit=10))
        for body in (b"x", b"x" * 11):
            front.hear(head(TARGETS[0], LINES[:1], LENGTH_LINES[0], 1, body))
        assert len(front.engine.asked) == 1
        assert b" 413 " in front.socket.sent

    asyncio.run(ask())


@pytest.mark.parametrize(
    "line",
    [b"x-request-id: 1", b"traceparent: 00-1-2-03", b"content-length: 2", b"expect: nothing"],
)
def test_heads_that_do_not_come_twice_or_ask_for_more_are_not_kept(line: bytes) -> None:
    async def ask() -> None:
        door = a_door()
        Front(door).hear(head(TARGETS[0], [line], LENGTH_LINES[0], 1, b"{}"))
        assert len(door.heads) == 0

    asyncio.run(ask())


def test_there_is_an_end_to_what_is_kept() -> None:
    heads = KnownHeads()
    for n in range(MOST + 5):
        heads.learn(b"%d" % n, Head(b"/", b"", [(b"content-length", b"1")], {}, keep_alive=True))
    assert len(heads) == MOST
    assert heads.get(b"4") is None
    assert heads.get(b"5") is not None


def test_a_head_that_is_long_is_not_looked_at() -> None:
    assert known_by(head(TARGETS[0], [b"a: " + b"b" * 5000], LENGTH_LINES[0], 0, b"")) == (b"", 0)


@pytest.mark.parametrize("data", [b"", b"\r\n\r\n", b"POST / HTTP/1.1\r\n", b"content-length: 1"])
def test_what_is_no_whole_request_is_none(data: bytes) -> None:
    assert known_by(data) == (b"", 0)


async def test_one_caller_is_not_taken_for_another(engine: StartEngine) -> None:
    """A known head opens no door: the key is looked at every time, and so is its length."""
    backend = await engine(chat())
    async with running(fleet(backend, server={"api_keys": ["sk-one"]})) as gate:
        reader, writer = await gate.connect()
        statuses = []
        for key in ("sk-one", "sk-one", "sk-two", "sk-one"):
            body = b'{"model": "%b", "messages": [], "user": "%b"}' % (MODEL.encode(), key.encode())
            told = (
                f"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {key}\r\n"
            )
            writer.write(f"{told}content-length: {len(body)}\r\n\r\n".encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            statuses.append(int(answer.split()[1]))
            if statuses[-1] != 200:
                break
            length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
        writer.close()
        assert statuses == [200, 200, 401]
        assert len(gate.relay.door.heads) == 1, "nothing is kept of who is refused"
        assert all("authorization" not in received.headers for received in backend.received)


async def test_a_key_that_is_taken_away_between_two_requests_is_refused(
    engine: StartEngine,
) -> None:
    """What is ready for the next request lets nobody in."""
    async with running(fleet(await engine(chat()), server={"api_keys": ["sk-one"]})) as gate:
        reader, writer = await gate.connect()
        body = b'{"model": "%b", "messages": []}' % MODEL.encode()
        told = b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer sk-one\r\n"
        statuses, refusal = [], Problem(401, "No.")
        for turn in range(4):
            if turn == 3:
                gate.relay.door._gate.admit = lambda named: refusal  # type: ignore[method-assign]
            writer.write(told + b"content-length: %d\r\n\r\n" % len(body) + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            statuses.append(int(answer.split()[1]))
            length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
        writer.close()
        assert statuses == [200, 200, 200, 401]


async def test_what_goes_on_to_the_engine_is_the_same_every_time(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(chat())
    gate = await gateway(backend)
    async with gate.client(x_tenant_id="t") as client:
        for text in ("a", "a long one", "a longer one still"):
            await client.post("/v1/chat/completions?q=1", json={"model": MODEL, "prompt": text})
    heads = []
    for received in backend.received:
        assert int(received.headers.pop("content-length")) == len(received.body)
        received.headers.pop("x-request-id")
        heads.append((received.head, received.headers))
    assert heads[0] == heads[1] == heads[2]
    assert len(backend.received) == 3
