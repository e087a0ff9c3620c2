"""A client that reads slowly slows its backend down, and nothing piles up in between."""

from __future__ import annotations

import asyncio

from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import STREAM_HEAD, Received, chat, chunk, event, eventually

PIECE = chunk(b"data: " + b"x" * 65_528 + b"\n\n")
PIECES = 800  # 52 MB: more than all socket buffers on the way together


async def test_the_backend_waits_for_the_client(engine: StartEngine, gateway: StartGateway) -> None:
    sent = 0

    async def flood(request: Received) -> bool:
        nonlocal sent
        await request.send(STREAM_HEAD)
        for _ in range(PIECES):
            await request.send(PIECE)
            sent += 1
        await request.send(b"0\r\n\r\n")
        return True

    gate = await gateway(await engine(flood))
    reader, writer = await gate.ask()
    await eventually(lambda: sent > 0)
    stuck_at = -1
    while sent != stuck_at:  # until the engine can write no more
        stuck_at = sent
        await asyncio.sleep(0.3)
    assert stuck_at < PIECES
    received = 0
    while not (data := await reader.read(1 << 20)).endswith(b"0\r\n\r\n"):
        received += len(data)
    assert sent == PIECES
    assert received + len(data) >= PIECES * 65_536
    writer.close()
    await eventually(lambda: gate.books["completed"] == 1)


async def test_a_slow_client_is_not_held_against_the_backend(
    engine: StartEngine, gateway: StartGateway
) -> None:
    """While the client does not read, the idle timeout does not run."""

    async def flood(request: Received) -> bool:
        await request.send(STREAM_HEAD)
        for _ in range(PIECES):
            await request.send(PIECE)
        await request.send(b"0\r\n\r\n")
        return True

    gate = await gateway(await engine(flood), reliability={"idle_timeout_s": 0.2})
    reader, writer = await gate.ask()
    await asyncio.sleep(0.8)
    size = 0
    while not (data := await reader.read(1 << 20)).endswith(b"0\r\n\r\n"):
        assert data, "cut"
        size += len(data)
    assert size + len(data) >= PIECES * 65_536
    writer.close()
    await eventually(lambda: gate.books["completed"] == 1)


async def test_one_slow_client_does_not_slow_another(
    engine: StartEngine, gateway: StartGateway
) -> None:
    async def flood(request: Received) -> None:
        await request.send(STREAM_HEAD)
        for _ in range(PIECES):
            await request.send(PIECE)

    backend = await engine(flood, chat())
    gate = await gateway(backend)
    _, writer = await gate.ask()
    await eventually(lambda: bool(backend.received))
    async with asyncio.timeout(15):
        assert (await gate.post()).status_code == 200
    writer.transport.abort()


async def test_a_token_arrives_in_the_turn_it_was_sent(
    engine: StartEngine, gateway: StartGateway
) -> None:
    """No Nagle, no batching: each event is there before the engine sends the next."""
    tick = asyncio.Event()

    async def paced(request: Received) -> bool:
        await request.send(STREAM_HEAD)
        for n in range(20):
            await request.send(chunk(event({"content": str(n)})))
            await tick.wait()
            tick.clear()
        await request.send(b"0\r\n\r\n")
        return True

    gate = await gateway(await engine(paced))
    reader, writer = await gate.ask()
    await reader.readuntil(b"\r\n\r\n")
    async with asyncio.timeout(15):
        for n in range(20):
            await reader.readuntil(b'"content": "%d"' % n)
            await reader.readuntil(b"\n\n\r\n")
            tick.set()
        await reader.readuntil(b"0\r\n\r\n")
    writer.close()
