"""A request leaves before its books are opened, and nobody can see a moment between the two."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

import pytest
import uvloop

from router.gateway.connection import Connection
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import chat


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
