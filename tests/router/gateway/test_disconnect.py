"""A client that leaves frees its backend at once, whatever the request was doing."""

from __future__ import annotations

import asyncio

import pytest

from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import (
    STREAM_HEAD,
    Received,
    chat,
    chunk,
    event,
    events,
    eventually,
    hang,
)

FAR_BELOW_ANY_TIMEOUT_S = 10.0
"""The gateway's own timeouts are a minute and more here, so only the disconnect can be the cause;
how fast it is, is measured in ``benchmarks/gateway``."""


async def endless(request: Received) -> None:
    """Stream until the gateway leaves."""
    await request.send(STREAM_HEAD)
    leaving = asyncio.create_task(request.wait_for_leaving())
    while not leaving.done():
        try:
            await request.send(chunk(event({"content": "a"})))
        except ConnectionError:
            break
        await asyncio.sleep(0.005)
    await leaving


async def head_then_hang(request: Received) -> None:
    await request.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")
    await hang(request)


@pytest.mark.parametrize(
    "behaviour",
    [endless, hang, head_then_hang, events(b": keep-alive\n\n", then=hang)],
    ids=["streaming", "before the first byte", "inside a plain answer", "while peeking"],
)
@pytest.mark.parametrize("how", ["close", "abort"])
async def test_the_backend_is_told_at_once(
    engine: StartEngine, gateway: StartGateway, behaviour: object, how: str
) -> None:
    backend = await engine(behaviour)  # type: ignore[arg-type]
    gate = await gateway(backend)
    _, writer = await gate.ask()
    await eventually(lambda: bool(backend.received))
    await asyncio.sleep(0.05)
    writer.close() if how == "close" else writer.transport.abort()
    await eventually(backend.received[0].client_left.is_set, within_s=FAR_BELOW_ANY_TIMEOUT_S)
    await eventually(lambda: gate.books["cancelled"] == 1)
    gate.assert_at_rest()


@pytest.mark.parametrize("behaviour", [endless, hang], ids=["streaming", "not streaming"])
async def test_it_hears_within_a_tenth_of_a_second(
    engine: StartEngine, gateway: StartGateway, behaviour: object
) -> None:
    """The best of several: this machine may be busy with something else."""
    backend = await engine(behaviour)  # type: ignore[arg-type]
    gate = await gateway(backend)
    loop, took_s = asyncio.get_running_loop(), []
    for n in range(1, 6):
        _, writer = await gate.ask()
        await eventually(lambda n=n: len(backend.received) == n)
        await asyncio.sleep(0.02)
        writer.transport.abort()
        left_s = loop.time()
        await asyncio.wait_for(backend.received[-1].client_left.wait(), FAR_BELOW_ANY_TIMEOUT_S)
        took_s.append(loop.time() - left_s)
    assert min(took_s) < 0.1


async def test_leaving_while_a_connection_is_being_made(
    engine: StartEngine, gateway: StartGateway
) -> None:
    """192.0.2.0/24 answers nobody (RFC 5737), so the dial hangs until the client leaves."""
    gate = await gateway("http://192.0.2.1:9", reliability={"connect_timeout_s": 30})
    _, writer = await gate.ask()
    await eventually(lambda: gate.books["arrived"] == 1)
    writer.close()
    await eventually(lambda: gate.books["cancelled"] + gate.books["failed"] == 1)


async def test_leaving_while_uploading_leaves_no_trace(gateway: StartGateway) -> None:
    gate = await gateway("http://127.0.0.1:9")
    _, writer = await gate.connect()
    writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: g\r\ncontent-length: 1000\r\n\r\n{")
    await asyncio.sleep(0.05)
    writer.close()
    await asyncio.sleep(0.05)
    assert gate.books["arrived"] == 0


async def test_leaving_after_the_answer_is_no_cancellation(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(chat()))
    reader, writer = await gate.ask()
    await reader.readuntil(b"}]")
    writer.close()
    await asyncio.sleep(0.05)
    assert (gate.books["completed"], gate.books["cancelled"]) == (1, 0)


async def test_a_crowd_that_leaves_leaves_nothing_behind(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(endless)
    gate = await gateway(backend)
    crowd = [await gate.ask() for _ in range(50)]
    await eventually(lambda: len(backend.received) == 50)
    for _, writer in crowd:
        writer.transport.abort()
    await eventually(lambda: gate.books["cancelled"] == 50)
    assert all(request.client_left.is_set() for request in backend.received) or (
        await eventually(lambda: all(r.client_left.is_set() for r in backend.received)) is None
    )
