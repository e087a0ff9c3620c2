"""Connect, first byte, idle on tokens, total: each ends in its own clear answer."""

from __future__ import annotations

import asyncio
import json

from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import (
    STREAM_HEAD,
    Received,
    chunk,
    event,
    events,
    eventually,
    hang,
    stream,
)

COMMENT = b": keep-alive\n\n"


async def comments(request: Received) -> None:
    """What a vLLM that was told to stop does: comments for ever, no token (recorded)."""
    leaving = asyncio.create_task(request.wait_for_leaving())
    while not leaving.done():
        try:
            await request.send(chunk(COMMENT))
        except ConnectionError:
            break
        await asyncio.sleep(0.02)
    await leaving


async def test_no_connection_in_time(gateway: StartGateway) -> None:
    gate = await gateway("http://192.0.2.1:9", reliability={"connect_timeout_s": 0.1})
    answered = await gate.post()
    # Where the network says "unreachable" at once, that is the answer instead.
    assert answered.status_code in (503, 504)
    assert answered.json()["error"]["code"] in ("backend_timeout", "backend_connect")


async def test_no_first_byte_in_time(engine: StartEngine, gateway: StartGateway) -> None:
    backend = await engine(hang)
    gate = await gateway(backend, reliability={"first_byte_timeout_s": 0.1})
    answered = await gate.post()
    assert answered.status_code == 504
    assert answered.json()["error"] == {
        "message": "Backend e0 sent no answer in time.",
        "type": "timeout_error",
        "param": None,
        "code": "backend_timeout",
    }
    await eventually(backend.received[0].client_left.is_set)


async def test_a_head_without_a_body_is_no_answer_yet(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(events(then=hang)), reliability={"first_byte_timeout_s": 0.1})
    assert (await gate.post()).status_code == 504


async def test_silence_in_mid_stream(engine: StartEngine, gateway: StartGateway) -> None:
    backend = await engine(events(event({"content": "a"}), then=hang))
    gate = await gateway(backend, reliability={"idle_timeout_s": 0.1})
    reader, writer = await gate.ask()
    raw = await reader.read()
    writer.close()
    last = [line for line in raw.splitlines() if line.startswith(b"data: ")][-1]
    assert "fell silent" in json.loads(last[6:])["error"]["message"]
    assert not raw.endswith(b"0\r\n\r\n")
    await eventually(backend.received[0].client_left.is_set)


async def test_comments_are_no_sign_of_life(engine: StartEngine, gateway: StartGateway) -> None:
    """The idle timeout runs on tokens, not on bytes."""
    backend = await engine(events(event({"content": "a"}), then=comments))
    gate = await gateway(backend, reliability={"idle_timeout_s": 0.2})
    reader, writer = await gate.ask()
    raw = await reader.read()
    writer.close()
    assert COMMENT in raw
    assert b"fell silent" in raw


async def test_tokens_keep_a_stream_alive_beyond_the_idle_timeout(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(
        await engine(stream(["a"] * 16, gap_s=0.1)), reliability={"idle_timeout_s": 1.2}
    )
    answered = await gate.post()
    assert answered.content.endswith(b"data: [DONE]\n\n")


async def test_comments_are_held_until_a_token_or_an_error_comes(
    engine: StartEngine, gateway: StartGateway
) -> None:
    full = b'data: {"error": {"message": "full", "code": 503}}\n\n'
    gate = await gateway(
        await engine(events(COMMENT, COMMENT, full)),
        await engine(events(COMMENT, event({"content": "a"}))),
    )
    answered = await gate.post()
    assert answered.status_code == 200
    assert answered.headers["x-motley-backend"] == "e1"
    assert answered.content.startswith(COMMENT + b"data: ")


async def test_comments_are_passed_on_when_the_wait_gets_long(
    engine: StartEngine, gateway: StartGateway
) -> None:
    """They keep idle timeouts between gateway and client from firing: then they must arrive."""
    proceed = asyncio.Event()

    async def late(request: Received) -> bool:
        await request.send(STREAM_HEAD, chunk(COMMENT))
        await proceed.wait()
        await request.send(chunk(COMMENT))
        await asyncio.sleep(0.02)
        await request.send(chunk(event({"content": "a"})), b"0\r\n\r\n")
        return True

    backend = await engine(late)
    gate = await gateway(backend, reliability={"first_byte_timeout_s": 60})
    reader, writer = await gate.ask()
    await eventually(lambda: bool(backend.received))
    await asyncio.sleep(0.05)
    gate.clock.ahead_s += 15
    proceed.set()
    raw = await reader.readuntil(b"0\r\n\r\n")
    assert raw.count(COMMENT) == 2
    writer.close()
    await eventually(lambda: gate.books["completed"] == 1)


async def test_the_whole_request_has_a_limit_too(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(
        await engine(stream(["a"] * 1000, gap_s=0.01)), reliability={"total_timeout_s": 0.3}
    )
    reader, writer = await gate.ask()
    raw = await reader.read()
    writer.close()
    assert b"took too long" in raw
    assert not raw.endswith(b"0\r\n\r\n")


async def test_retries_share_one_limit(engine: StartEngine, gateway: StartGateway) -> None:
    engines = [await engine(hang) for _ in range(4)]
    gate = await gateway(
        *engines, reliability={"first_byte_timeout_s": 1.0, "total_timeout_s": 1.5}
    )
    assert (await gate.post()).status_code == 504
    assert sum(len(fake.received) for fake in engines) == 2
