"""The fault matrix, clients: they leave at every phase, read slowly, send slowly; one or 500."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from router.gateway import server
from tests.fire.census import descriptors, nothing_left_behind
from tests.fire.client import body_of, read, request_of
from tests.router.gateway.fakes import (
    STREAM_HEAD,
    Behaviour,
    FakeEngine,
    Gateway,
    Received,
    chat,
    chunk,
    event,
    events,
    eventually,
    fleet,
    hang,
    running,
)

QUIET = {"connect_timeout_s": 30.0, "first_byte_timeout_s": 60.0, "idle_timeout_s": 60.0}
CROWDS = [1, pytest.param(500, marks=pytest.mark.full)]


async def head_then_hang(request: Received) -> None:
    await request.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")
    await hang(request)


async def endless(request: Received) -> None:
    """Stream until the gateway leaves."""
    await request.send(STREAM_HEAD)
    leaving = asyncio.create_task(request.wait_for_leaving())
    while not leaving.done():
        try:
            await request.send(chunk(event({"content": "a" * 200})))
        except ConnectionError:
            break
        await asyncio.sleep(0.01)
    await leaving


PHASES: dict[str, Behaviour | None] = {
    "while uploading": hang,
    "while queued": hang,
    "while connecting": None,
    "before the first byte": hang,
    "while comments are held back": events(b": keep-alive\n\n", then=hang),
    "inside a plain answer": head_then_hang,
    "in mid-stream": endless,
}


def deaf_port() -> list[socket.socket]:
    """A listener whose queue is full: who dials it waits. Close all of them."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting = []
    for _ in range(4):
        line = socket.socket()
        line.setblocking(False)
        line.connect_ex(listener.getsockname())
        waiting.append(line)
    return [listener, *waiting]


def is_there(gate: Gateway, phase: str, clients: int) -> Callable[[], bool]:
    """Whether all clients are in this phase."""
    core = gate.relay.engine.dispatcher
    if phase == "while uploading":
        return lambda: True
    if phase == "while queued":
        return lambda: core.queued == clients
    if phase in ("inside a plain answer", "in mid-stream"):
        return lambda: sum(b.decoding for b in core.state.backends) >= (phase == "in mid-stream")
    return lambda: core.in_flight == clients


@pytest.mark.parametrize("clients", CROWDS)
@pytest.mark.parametrize("phase", PHASES)
async def test_a_client_that_leaves_leaves_nothing(
    front_end: str, phase: str, clients: int
) -> None:
    behaviour = PHASES[phase]
    engine = FakeEngine(behaviour or hang)
    async with nothing_left_behind():
        await engine.start()
        deaf = deaf_port()
        url = engine if behaviour is not None else f"http://127.0.0.1:{deaf[0].getsockname()[1]}"
        async with running(fleet(url, reliability=QUIET), front_end) as gate:
            core = gate.relay.engine.dispatcher
            if phase == "while queued":
                core.drain("e0", 0.0)
            whole = request_of(body_of(stream=phase != "inside a plain answer"))
            lines = [await gate.connect() for _ in range(clients)]
            for _, writer in lines:
                writer.write(whole[:-20] if phase == "while uploading" else whole)
            await eventually(is_there(gate, phase, clients))
            await asyncio.sleep(0.05)
            for n, (_, writer) in enumerate(lines):
                writer.close() if n % 2 else writer.transport.abort()
            expected = 0 if phase == "while uploading" else clients
            await eventually(lambda: gate.books["cancelled"] == expected)
            await eventually(lambda: gate.relay.engine.live == 0)
            gate.assert_at_rest()
            backend = core.state.get("e0")
            assert backend.breaker.state == "closed", "who leaves says nothing of the backend"
            await eventually(lambda: all(r.client_left.is_set() for r in engine.received))
        await engine.stop()
        for line in deaf:
            line.close()
        gate.relay = None  # type: ignore[assignment]


async def slowly_sent(gate: Gateway) -> bytes:
    """A request in pieces of 20 bytes."""
    reader, writer = await gate.connect()
    raw = request_of(body_of(stream=False))
    for at in range(0, len(raw), 20):
        writer.write(raw[at : at + 20])
        await writer.drain()
        await asyncio.sleep(0.002)
    came = await reader.read()
    writer.close()
    return came


async def slowly_read(gate: Gateway) -> bytes:
    """An answer read at 64 KiB every few milliseconds, through a small window."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", int(gate.url.rpartition(":")[2]), limit=1024
    )
    writer.write(request_of(body_of(stream=True)))
    came = b""
    while part := await reader.read(65_536):
        came += part
        await asyncio.sleep(0.002)
    writer.close()
    return came


TEXT = "a" * 20_000


async def long_answer(request: Received) -> bool:
    """A megabyte as fast as it is taken."""
    if b'"stream": false' in request.body:
        return bool(await chat()(request))
    await request.send(STREAM_HEAD)
    for _ in range(50):
        await request.send(chunk(event({"content": TEXT})))
    await request.send(chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n")
    return True


@pytest.mark.parametrize("clients", [1, pytest.param(100, marks=pytest.mark.full)])
@pytest.mark.parametrize("how", [slowly_sent, slowly_read])
async def test_a_slow_client_gets_everything_and_costs_the_backend_nothing(
    front_end: str, how: Callable[[Gateway], Awaitable[bytes]], clients: int
) -> None:
    engine = FakeEngine(long_answer)
    async with nothing_left_behind():
        await engine.start()
        async with running(fleet(engine, reliability=QUIET), front_end) as gate:
            answers = await asyncio.gather(*(how(gate) for _ in range(clients)))
            seen = [read(raw) for raw in answers]
            assert {one.end for one in seen} == {"ok"}
            if how is slowly_read:
                assert all(one.body.count(TEXT.encode()) == 50 for one in seen)
            assert gate.relay.engine.dispatcher.state.get("e0").breaker.state == "closed"
            await eventually(lambda: gate.relay.engine.live == 0)
            gate.assert_at_rest()
        await engine.stop()
        gate.relay = None  # type: ignore[assignment]


async def endlessly_much(request: Received) -> None:
    """More than all buffers on the way hold, until the gateway leaves."""
    await request.send(STREAM_HEAD)
    leaving = asyncio.create_task(request.wait_for_leaving())
    with suppress(ConnectionError):
        while not leaving.done():
            await request.send(chunk(event({"content": TEXT})))
    await leaving


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_USER_TIMEOUT is Linux's")
@pytest.mark.parametrize("clients", [1, pytest.param(100, marks=pytest.mark.full)])
async def test_a_client_that_takes_nothing_is_let_go(
    front_end: str, clients: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays connected and never reads, in mid-stream; its engine and our memory are freed."""
    monkeypatch.setattr(server, "UNREAD_S", 0.5)
    engine = FakeEngine(endlessly_much)
    async with nothing_left_behind():
        await engine.start()
        async with running(fleet(engine, reliability=QUIET), front_end) as gate:
            address = ("127.0.0.1", int(gate.url.rpartition(":")[2]))
            deaf = [socket.create_connection(address) for _ in range(clients)]
            for line in deaf:
                line.sendall(request_of(body_of(stream=True)))
            await eventually(lambda: gate.books["cancelled"] == clients)
            await eventually(lambda: gate.relay.engine.live == 0)
            gate.assert_at_rest()
            await eventually(lambda: all(r.client_left.is_set() for r in engine.received))
            for line in deaf:
                line.close()
        await engine.stop()
        gate.relay = None  # type: ignore[assignment]


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_USER_TIMEOUT is Linux's")
async def test_a_client_that_is_cut_and_takes_nothing_keeps_no_descriptor(
    front_end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer took too long; closing it waits for who never reads, but not for ever."""
    monkeypatch.setattr(server, "UNREAD_S", 0.5)
    engine = FakeEngine(endlessly_much)
    limits = {**QUIET, "total_timeout_s": 0.3}
    async with nothing_left_behind():
        await engine.start()
        async with running(fleet(engine, reliability=limits), front_end) as gate:
            before = descriptors()
            deaf = socket.create_connection(("127.0.0.1", int(gate.url.rpartition(":")[2])))
            deaf.sendall(request_of(body_of(stream=True)))
            await eventually(lambda: gate.relay.engine.live == 0 and gate.books["arrived"] == 1)
            await eventually(lambda: descriptors() <= before + 1)  # the client's own
            deaf.close()
        await engine.stop()
        gate.relay = None  # type: ignore[assignment]
