"""A request leaves before its books are opened, and nobody can see a moment between the two."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvloop

from router.gateway.connection import Connection
from router.gateway.hot_cycle import HotCycle
from router.gateway.hot_http import HotHttp
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import REQUEST, Gateway, Received, chat, eventually, hang


async def test_a_warm_connection_carries_it_before_it_is_booked(
    engine: StartEngine, gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = await gateway(await engine(chat()))
    await gate.post()
    dispatcher: Any = gate.relay.engine.dispatcher
    seen: list[tuple[str, int]] = []
    send, book = Connection.send_ahead, dispatcher.book

    def note_sent(connection: Connection, request: Sequence[bytes]) -> None:
        seen.append(("sent", dispatcher.in_flight))
        send(connection, request)

    def note_booked() -> None:
        book()
        seen.append(("booked", dispatcher.in_flight))

    monkeypatch.setattr(Connection, "send_ahead", note_sent)
    monkeypatch.setattr(dispatcher, "book", note_booked)
    assert (await gate.post()).status_code == 200
    assert seen[:2] == [("sent", 0), ("booked", 1)]
    assert gate.books["completed"] == 2
    gate.assert_at_rest()


def test_the_event_loop_writes_at_once() -> None:
    """Else what is done after a write would come before it."""

    async def write() -> bytes:
        near, far = socket.socketpair()
        with near, far:
            far.setblocking(False)
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
            transport.writelines((b"head ", b"body"))
            arrived = far.recv(100)
            transport.abort()
        return arrived

    assert uvloop.run(write()) == b"head body"


async def fails(gate: Gateway) -> None:
    """One request, which the front end answers as any defect: with a 500 or not at all."""
    try:
        answer = await gate.post()
    except httpx.RemoteProtocolError:
        return
    assert answer.status_code == 500


def raises(*_: Any) -> int:
    raise RuntimeError("a defect of ours")


@pytest.mark.parametrize(("when", "ends"), [("booking", "failed"), ("booked", "cancelled")])
async def test_an_error_after_sending_leaves_no_engine_working_for_nobody(
    engine: StartEngine,
    gateway: StartGateway,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
    ends: str,
) -> None:
    backend = await engine(chat(), hang)
    gate = await gateway(backend)
    await gate.post()
    core, entered = gate.relay.engine, []
    if when == "booking":
        monkeypatch.setattr(core.dispatcher, "_listener", SimpleNamespace(dispatched=raises))
    else:
        monkeypatch.setattr(core, "sent", raises)
    monkeypatch.setattr(core.gate, "left", entered.append)
    await fails(gate)
    assert gate.books[ends] == len(entered) == 1
    gate.assert_at_rest()
    await eventually(lambda: len(backend.received) == 2 and left(backend.received[1]))


def left(request: Received) -> bool:
    return request.client_left.is_set()


@pytest.mark.parametrize("front_end", ["protocol"], indirect=True)
async def test_what_was_made_ready_and_not_used_is_let_go(
    engine: StartEngine, gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request whose head began during the answer before comes into nothing made ready."""
    made: list[HotCycle] = []
    make = HotHttp._cycle_for

    def noted(protocol: HotHttp, head: Any) -> HotCycle:
        made.append(make(protocol, head))
        return made[-1]

    monkeypatch.setattr(HotHttp, "_cycle_for", noted)
    go = asyncio.Event()

    async def when_told(request: Received) -> bool | None:
        await go.wait()
        return await chat()(request)

    gate = await gateway(await engine(chat(), when_told, chat()))
    reader, writer = await gate.connect()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-length: %d\r\n\r\n"
    whole = head % len(REQUEST) + REQUEST

    async def answer() -> None:
        told = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(told.lower().split(b"content-length: ")[1].split()[0]))

    writer.write(whole)
    await answer()
    writer.write(whole)
    await asyncio.sleep(0.05)
    writer.write(whole[:9])
    await asyncio.sleep(0.05)
    go.set()
    await answer()
    writer.write(whole[9:])
    await answer()
    writer.close()
    assert len(made) == 3
    assert [cycle.ready is not None for cycle in made] == [False, False, True]
