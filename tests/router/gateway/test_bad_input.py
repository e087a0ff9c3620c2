"""What broken clients send: a clear answer, the right status, and the gateway goes on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from router.gateway import door
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import MODEL, REQUEST, chat

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\n"


@pytest.mark.parametrize(
    ("body", "status_and_code", "says"),
    [
        (b"", (400, "invalid_json"), "not valid JSON"),
        (b"{", (400, "invalid_json"), "not valid JSON"),
        (b"[1]", (400, "invalid_json"), "not a request object"),
        (b'{"model":5}', (400, "invalid_json"), "not a request object"),
        (b"{}", (400, "missing_model"), "GET /v1/models"),
        (b'{"model":"gpt-9"}', (404, "model_not_found"), f"Models served: {MODEL}"),
        (b'{"model":"\xff"}', (400, "invalid_json"), "not valid JSON"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, (400, "invalid_json"), "nested too deep"),
    ],
    ids=["empty", "torn", "list", "number", "none", "unknown", "latin-1", "deep"],
)
async def test_bodies_that_cannot_be_routed(
    engine: StartEngine,
    gateway: StartGateway,
    body: bytes,
    status_and_code: tuple[int, str],
    says: str,
) -> None:
    backend = await engine(chat())
    gate = await gateway(backend)
    answered = await gate.post(body=body, x_request_id="r")
    error = answered.json()["error"]
    assert (answered.status_code, error["code"]) == status_and_code
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert says in error["message"]
    assert answered.headers["x-request-id"] == "r"
    assert answered.headers["x-motley-policy"] == "round-robin"
    assert backend.received == []
    assert (await gate.post()).status_code == 200


NESTED = b'{"model":"%b","messages":[],"metadata":%b}'


@pytest.mark.parametrize(
    ("inner", "status"),
    [
        (b'{"a":' * 9 + b"1" + b"}" * 9, 200),
        (b'{"a":' * 10 + b"1" + b"}" * 10, 400),
        (b"[" * 10 + b"]" * 10, 400),
        (b"[" + b"[]," * 200 + b"[]]", 200),
        (b'"' + b"{[" * 200 + b'"', 200),
        (b'"a\\\\\\"' + b"{[" * 200 + b'"', 200),
    ],
    ids=["as deep as allowed", "deeper", "lists", "wide", "in a text", "after a quote in a text"],
)
async def test_how_deep_a_body_is_nested_can_be_limited(
    engine: StartEngine, gateway: StartGateway, inner: bytes, status: int
) -> None:
    backend = await engine(chat())
    gate = await gateway(backend, server={"max_json_depth": 10})
    answered = await gate.post(body=NESTED % (MODEL.encode(), inner))
    assert answered.status_code == status, answered.text
    assert len(backend.received) == (status == 200)
    if status == 400:
        error = answered.json()["error"]
        assert error["code"] == "invalid_json"
        assert "server.max_json_depth" in error["message"]


async def test_an_unknown_service_class_is_told_the_known_ones(gateway: StartGateway) -> None:
    gate = await gateway("http://127.0.0.1:9")
    answered = await gate.post(x_motley_slo="gold")
    assert answered.status_code == 400
    assert "bulk, interactive, throughput" in answered.json()["error"]["message"]


async def test_too_large_by_its_own_word(engine: StartEngine, gateway: StartGateway) -> None:
    """Refused before it is read, and the connection is closed: the rest would be garbage."""
    gate = await gateway(await engine(chat()), server={"max_body_bytes": 2048})
    reader, writer = await gate.connect()
    writer.write(HEAD + b"content-length: 999999\r\n\r\n{")
    raw = await reader.read()
    writer.close()
    assert raw.startswith(b"HTTP/1.1 413 ")
    assert json.loads(raw.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_too_large"
    assert b"connection: close" in raw


async def test_too_large_as_it_turns_out(engine: StartEngine, gateway: StartGateway) -> None:
    gate = await gateway(await engine(chat()), server={"max_body_bytes": 2048})
    reader, writer = await gate.connect()
    writer.write(HEAD + b"transfer-encoding: chunked\r\n\r\n")
    for _ in range(4):
        writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
        await asyncio.sleep(0.01)
    assert (await reader.read()).startswith(b"HTTP/1.1 413 ")
    writer.close()


@pytest.mark.parametrize("path", [b"/v1/batches", b"/workers", b"/reload", b"/v1/files"])
@pytest.mark.parametrize("length", [b"content-length: 99999999", b"transfer-encoding: chunked"])
async def test_no_path_reads_without_bound(
    gateway: StartGateway, tmp_path: Path, path: bytes, length: bytes
) -> None:
    """Whoever sends it is asked for a key only when the body is there."""
    gate = await gateway(
        "http://127.0.0.1:9",
        batch={"directory": str(tmp_path)},
        server={"max_body_bytes": 2_000_000},
    )
    reader, writer = await gate.connect()
    head = b"POST %b HTTP/1.1\r\nhost: g\r\ncontent-type: application/json\r\n" % path
    writer.write(head + length + b"\r\n\r\n")
    if length.endswith(b"chunked"):
        writer.write((b"80000\r\n" + b" " * 0x80000 + b"\r\n") * 6)
    async with asyncio.timeout(10):
        status = await reader.readline()
    writer.close()
    if path == b"/reload":
        assert status.startswith(b"HTTP/1.1 403 "), "it reads no body at all"
    else:
        assert status.startswith(b"HTTP/1.1 413 ")
    assert (await gate.get("/health")).status_code == 200


async def test_a_chunked_body_is_sent_on_with_its_length(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(chat())
    gate = await gateway(backend)
    reader, writer = await gate.connect()
    writer.write(HEAD + b"transfer-encoding: chunked\r\n\r\n")
    for byte in (REQUEST[:10], REQUEST[10:11], REQUEST[11:]):
        writer.write(b"%x\r\n%b\r\n" % (len(byte), byte))
        await asyncio.sleep(0.01)
    writer.write(b"0\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    assert backend.received[0].body == REQUEST
    assert "transfer-encoding" not in backend.received[0].headers


@pytest.mark.parametrize(
    "extra",
    [
        b"content-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"content-length: -1\r\n\r\n",
        b"content-length: five\r\n\r\n",
        b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"bad header\r\n\r\n",
        b"x: a\x00b\r\n\r\n",
    ],
)
async def test_smuggling_is_refused(
    engine: StartEngine, gateway: StartGateway, extra: bytes
) -> None:
    backend = await engine(chat())
    gate = await gateway(backend)
    reader, writer = await gate.connect()
    writer.write(HEAD + extra)
    assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
    writer.close()
    assert backend.received == []
    assert (await gate.post()).status_code == 200


async def test_a_transfer_coding_that_nobody_undoes_is_refused(
    engine: StartEngine, gateway: StartGateway
) -> None:
    """Its bytes would be taken for the body itself."""
    backend = await engine(chat())
    gate = await gateway(backend)
    reader, writer = await gate.connect()
    writer.write(HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
    async with asyncio.timeout(10):
        raw = await reader.read()
    writer.close()
    assert raw.startswith(b"HTTP/1.1 400 ")
    assert b"'chunked'" in raw
    assert backend.received == []


@pytest.mark.parametrize(
    ("line", "status"), [(b"x-long: " + b"a" * 70_000, 431), (b"x-1: a\r\n" * 200 + b"x: a", 431)]
)
async def test_a_head_that_is_too_long_is_the_clients_fault(
    gateway: StartGateway, line: bytes, status: int
) -> None:
    gate = await gateway("http://127.0.0.1:9")
    reader, writer = await gate.connect()
    writer.write(HEAD + line + b"\r\n\r\n")
    async with asyncio.timeout(10):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


async def test_pipelined_requests_are_answered_in_order(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(chat("one"), chat("two")))
    reader, writer = await gate.connect()
    whole = HEAD + b"content-length: %d\r\n\r\n" % len(REQUEST) + REQUEST
    writer.write(whole + whole)
    raw = await reader.readuntil(b"two")
    assert raw.index(b"one") < raw.index(b"two")
    writer.close()


async def test_expect_100_continue(engine: StartEngine, gateway: StartGateway) -> None:
    gate = await gateway(await engine(chat()))
    reader, writer = await gate.connect()
    writer.write(HEAD + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(REQUEST))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    writer.write(REQUEST)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_an_upload_is_told_to_go_on(gateway: StartGateway, tmp_path: Path) -> None:
    """curl asks before it sends more than a megabyte, and waits a second for the answer."""
    gate = await gateway("http://127.0.0.1:9", batch={"directory": str(tmp_path)})
    reader, writer = await gate.connect()
    head = (
        b"POST /v1/files HTTP/1.1\r\nhost: g\r\ncontent-type: multipart/form-data; boundary=b\r\n"
    )
    writer.write(head + b"expect: 100-continue\r\ncontent-length: 4\r\n\r\n")
    async with asyncio.timeout(10):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        writer.write(b"--b-")
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_a_websocket_upgrade_is_an_ordinary_wrong_request(gateway: StartGateway) -> None:
    gate = await gateway("http://127.0.0.1:9")
    reader, writer = await gate.connect()
    writer.write(
        b"GET /v1/chat/completions HTTP/1.1\r\nhost: g\r\nconnection: upgrade\r\n"
        b"upgrade: websocket\r\nsec-websocket-key: x\r\nsec-websocket-version: 13\r\n\r\n"
    )
    assert (await reader.readline()).startswith(b"HTTP/1.1 405 ")
    writer.close()


async def test_a_client_that_sends_half_and_closes_its_side(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(chat())
    gate = await gateway(backend)
    reader, writer = await gate.connect()
    writer.write(HEAD + b"content-length: 100\r\n\r\n{")
    writer.write_eof()
    await reader.read()
    writer.close()
    assert backend.received == []
    assert gate.books["arrived"] == 0


async def test_an_upload_that_stalls_ends(
    engine: StartEngine, gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "UPLOAD_IDLE_S", 0.1)
    gate = await gateway(await engine(chat()))
    reader, writer = await gate.connect()
    writer.write(HEAD + b"content-length: 100\r\n\r\n{")
    raw = await reader.read()
    writer.close()
    assert raw.startswith(b"HTTP/1.1 408 ")
    assert b"upload_timeout" in raw
