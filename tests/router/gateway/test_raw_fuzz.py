"""Bytes that no client should send, on a raw socket: answered or dropped, and nothing breaks.

Runs over both front ends. The random part is seeded; ``-m full`` does twenty times as much.
"""

from __future__ import annotations

import asyncio
import json
import random
from http import HTTPStatus

import pytest

from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import MODEL, REQUEST, Gateway, chat

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\n"
WHOLE = HEAD + b"content-length: %d\r\n\r\n" % len(REQUEST) + REQUEST


async def talk(gate: Gateway, raw: bytes, *, eof: bool = True) -> bytes:
    """Everything the gateway says to these bytes."""
    reader, writer = await gate.connect()
    try:
        writer.write(raw)
        await writer.drain()
        if eof:
            writer.write_eof()
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def problem(raw: bytes) -> tuple[int, dict[str, str]]:
    """Status and error of one answer, which must have the one shape."""
    head, _, body = raw.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert b"content-type: application/json" in head
    assert b"connection: close" in head
    return status, error


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/batches"], ids=["hot", "cold"])
@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"FETCH / HTTP/1.1\r\nhost: g\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (HEAD + b"host: other\r\ncontent-length: 2\r\n\r\n{}", 400),
        (HEAD + b"authorization: Bearer a\r\nauthorization: Bearer b\r\n\r\n", 400),
        (HEAD + b"content-length: 2\r\ncontent-length: 2\r\n\r\n{}", 400),
        (HEAD + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"transfer-encoding: chunked\r\n\r\nZZ\r\n", 400),
        (HEAD + b"transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n", 400),
        (HEAD + b"content-length : 5\r\n\r\nhello", 400),
        (HEAD + b"x-long: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        (HEAD + b"".join(b"x-%d: 1\r\n" % n for n in range(200)) + b"\r\n", 431),
        (b"POST /v1/completions?" + b"a" * 9_000 + b" HTTP/1.1\r\nhost: g\r\n\r\n", 414),
    ],
)
async def test_what_is_not_http_or_too_much_of_it(
    gateway: StartGateway, raw: bytes, status: int, path: bytes
) -> None:
    gate = await gateway("http://127.0.0.1:9")
    raw = raw.replace(b"/v1/chat/completions", path)
    assert problem(await talk(gate, raw, eof=False))[0] == status
    assert gate.books["arrived"] == 0
    assert (await gate.get("/health")).status_code == 200


async def test_a_second_request_cannot_hide_in_the_first(
    engine: StartEngine, gateway: StartGateway
) -> None:
    """What follows a body is a request of its own, judged like any other."""
    backend = await engine(chat("one"))
    gate = await gateway(backend, server={"api_keys": ["k"]})
    first = WHOLE.replace(b"host: g\r\n", b"host: g\r\nauthorization: Bearer k\r\n")
    raw = await talk(gate, first + WHOLE, eof=False)
    assert raw.count(b"HTTP/1.1 200") == 1
    assert raw.count(b"HTTP/1.1 401") == 1
    assert len(backend.received) == 1


async def test_no_header_of_one_hop_reaches_the_engine(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(chat())
    gate = await gateway(backend)
    extra = b"connection: close, x-secret\r\nx-secret: 1\r\nte: trailers\r\nkeep-alive: 5\r\n"
    await talk(gate, WHOLE.replace(b"host: g\r\n", b"host: g\r\n" + extra), eof=False)
    assert {"connection", "x-secret", "te", "keep-alive"}.isdisjoint(backend.received[0].headers)


async def test_an_upgrade_is_not_followed(engine: StartEngine, gateway: StartGateway) -> None:
    """Java's client asks for h2c with every first request, body and all."""
    backend = await engine(chat())
    gate = await gateway(backend)
    for protocol in (b"websocket", b"h2c"):
        extra = b"connection: upgrade\r\nupgrade: %b\r\n" % protocol
        reader, writer = await gate.connect()
        writer.write(WHOLE.replace(b"host: g\r\n", b"host: g\r\n" + extra))
        raw = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        assert raw.startswith(b"HTTP/1.1 200 "), raw
        assert b" 101 " not in raw
    assert all("upgrade" not in got.headers for got in backend.received)


async def test_an_answer_to_a_refused_upload_is_seen_by_who_is_still_sending(
    gateway: StartGateway,
) -> None:
    gate = await gateway("http://127.0.0.1:9", server={"max_body_bytes": 2048})
    size = 20_000_000
    raw = await talk(gate, HEAD + b"content-length: %d\r\n\r\n" % size + b"x" * size, eof=False)
    assert problem(raw)[0] == 413


async def test_a_prompt_of_50_mb_is_just_a_long_prompt(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(chat())
    gate = await gateway(backend)
    body = REQUEST.replace(b"Say hello.", b"a" * 50_000_000)
    assert (await gate.post(body=body)).status_code == 200
    assert backend.received[0].body == body


async def test_an_http_1_0_client_gets_an_answer_without_chunks(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(chat()))
    raw = await talk(gate, WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0"), eof=False)
    assert b"transfer-encoding" not in raw
    assert json.loads(raw.partition(b"\r\n\r\n")[2])["model"] == MODEL


def mutated(rng: random.Random) -> bytes:
    """A good request, hurt in a few places."""
    raw = bytearray(WHOLE)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(raw))
        kind = rng.randrange(5)
        if kind == 0:
            raw[at] = rng.randrange(256)
        elif kind == 1:
            del raw[at : at + rng.randint(1, 20)]
        elif kind == 2:
            raw[at:at] = rng.randbytes(rng.randint(1, 20))
        elif kind == 3:
            raw[at:at] = rng.choice([b"\r\n", b"\n", b"\x00", b": ", b"chunked", b"\r\n\r\n"])
        else:
            raw[at:at] = raw[: rng.randint(1, len(raw))]
    return bytes(raw)


async def survive(gate: Gateway, rng: random.Random, rounds: int) -> None:
    for _ in range(rounds):
        raw = await talk(gate, mutated(rng))
        while raw.startswith(b"HTTP/1.1 "):
            head, _, rest = raw.partition(b"\r\n\r\n")
            status = int(head.split()[1])
            HTTPStatus(status)
            assert status < 500, raw
            lengths = [
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            ]
            raw = rest[lengths[0] :] if lengths else b""
    assert (await gate.post()).status_code == 200


async def test_mutilated_requests(
    engine: StartEngine, gateway: StartGateway, caplog: pytest.LogCaptureFixture
) -> None:
    gate = await gateway(await engine(chat()))
    await survive(gate, random.Random(7), 150)
    assert "Traceback" not in caplog.text


@pytest.mark.full
async def test_many_mutilated_requests(
    engine: StartEngine, gateway: StartGateway, caplog: pytest.LogCaptureFixture
) -> None:
    gate = await gateway(await engine(chat()))
    await survive(gate, random.Random(8), 3000)
    assert "Traceback" not in caplog.text


async def test_half_closed_and_silent_sockets_leave_nothing_behind(gateway: StartGateway) -> None:
    gate = await gateway("http://127.0.0.1:9")
    for cut in range(0, len(WHOLE) - 1, 9):
        _, writer = await gate.connect()
        writer.write(WHOLE[:cut])
        if cut % 2:
            writer.write_eof()
        writer.close()
    assert (await gate.get("/health")).status_code == 200
    assert gate.books["arrived"] == 0
