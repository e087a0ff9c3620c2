"""Corners of HTTP that both front ends must turn alike: old clients, interim answers, slashes."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from openai import AsyncOpenAI

from router.gateway.admin.door import build_admin_app
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import (
    MODEL,
    REQUEST,
    Behaviour,
    Gateway,
    Received,
    answer,
    chat,
    stream,
)

DEAD = "http://127.0.0.1:9"


async def raw_answer(gate: Gateway, request: bytes) -> bytes:
    """Everything until the gateway closes the connection, which it must do by itself."""
    reader, writer = await gate.connect()
    writer.write(request)
    async with asyncio.timeout(10):
        raw = await reader.read()
    writer.close()
    return raw


# Clients of HTTP/1.0


def old(body: bytes, path: bytes = b"/v1/chat/completions", headers: bytes = b"") -> bytes:
    return b"POST %b HTTP/1.0\r\ncontent-length: %d\r\n%b\r\n%b" % (path, len(body), headers, body)


async def test_an_old_client_gets_a_stream_that_ends_with_the_connection(
    engine: StartEngine, gateway: StartGateway
) -> None:
    """It knows no chunks and would show their sizes as text."""
    gate = await gateway(await engine(stream(["a", "b"])))
    streams = REQUEST[:-1] + b',"stream":true}'
    for keep in (b"", b"connection: keep-alive\r\n"):
        head, _, body = (await raw_answer(gate, old(streams, headers=keep))).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"transfer-encoding" not in head.lower()
        assert b"connection: close" in head.lower()
        assert body.startswith(b"data: ")
        assert body.endswith(b"data: [DONE]\n\n")


async def test_an_old_client_gets_a_length_where_the_engine_gives_one(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(answer(200, b"{}"), answer(204, b"")))
    head, _, body = (await raw_answer(gate, old(REQUEST))).partition(b"\r\n\r\n")
    assert b"content-length: 2" in head
    assert body == b"{}"
    assert (await raw_answer(gate, old(REQUEST))).endswith(b"\r\n\r\n")


async def test_requests_of_two_versions_in_line_are_each_answered_in_its_own(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(stream(["a"])))
    streams = REQUEST[:-1] + b',"stream":true}'
    new = old(streams).replace(b"HTTP/1.0\r\n", b"HTTP/1.1\r\nhost: g\r\n")
    raw = await raw_answer(gate, new + old(streams))
    first, second = raw.split(b"HTTP/1.1 ")[1:]
    assert b"transfer-encoding: chunked" in first
    assert first.endswith(b"0\r\n\r\n")
    assert b"connection: close" in second
    assert second.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("request_line", [b"GET /health", b"HEAD /", b"GET /nothing", b"GET /"])
async def test_an_old_client_gets_every_other_page(
    gateway: StartGateway, request_line: bytes
) -> None:
    gate = await gateway(DEAD)
    head, _, body = (await raw_answer(gate, request_line + b" HTTP/1.0\r\n\r\n")).partition(
        b"\r\n\r\n"
    )
    assert b"transfer-encoding" not in head.lower()
    assert bool(body) == (request_line != b"HEAD /")


async def test_an_old_clients_stream_of_the_gateways_own_is_not_chunked(
    gateway: StartGateway,
) -> None:
    gate = await gateway(DEAD)
    reader, writer = await gate.connect()
    writer.write(b"GET /dashboard/stream HTTP/1.0\r\n\r\n")
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        first = await reader.readline()
    writer.close()
    assert b"transfer-encoding" not in head.lower()
    assert first.startswith(b"event: hello")


# Interim answers, towards clients and from engines


async def test_an_old_client_is_not_told_to_go_on(
    engine: StartEngine, gateway: StartGateway
) -> None:
    """It would take ``100 Continue`` for the answer (RFC 9110, 10.1.1)."""
    gate = await gateway(await engine(chat()))
    raw = await raw_answer(gate, old(REQUEST, headers=b"expect: 100-continue\r\n"))
    assert raw.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("headers", [b"", b"authorization: Bearer wrong\r\n"])
async def test_who_is_refused_is_not_told_to_go_on(gateway: StartGateway, headers: bytes) -> None:
    gate = await gateway(DEAD, server={"api_keys": ["k"]})
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nexpect: 100-continue\r\n"
    raw = await raw_answer(gate, head + headers + b"content-length: 99\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 401 ")


async def test_the_body_may_come_before_it_is_asked_for(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(chat("whole")))
    reader, writer = await gate.connect()
    length = b"content-length: %d\r\n\r\n" % len(REQUEST)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nexpect: 100-continue\r\n" + length
    writer.write(head + REQUEST)
    async with asyncio.timeout(10):
        raw = await reader.readuntil(b"whole")
    writer.close()
    assert b"HTTP/1.1 200 " in raw


def after(*interim: bytes) -> Behaviour:
    async def behave(request: Received) -> bool:
        await request.send(*interim)
        await asyncio.sleep(0.01)
        return bool(await chat("real")(request))

    return behave


async def test_no_interim_answer_of_an_engine_is_the_answer(
    engine: StartEngine, gateway: StartGateway
) -> None:
    go_on = b"HTTP/1.1 100 Continue\r\n\r\n"
    hint = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\ncontent-length: 9\r\n\r\n"
    backend = await engine(
        after(go_on), after(hint, hint), after(b"HTTP/1.1 102 Busy\r\n\r\n", go_on)
    )
    gate = await gateway(backend)
    for _ in range(4):
        answered = await gate.post()
        assert (answered.status_code, "link" in answered.headers) == (200, False)
        assert answered.json()["choices"][0]["message"]["content"] == "real"
    assert backend.connections == 1, "their connection is as good as any"


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.1 000 X\r\ncontent-length: 2\r\n\r\nhi",
        b"HTTP/1.1 099 X\r\n\r\n",
        b"HTTP/1.1 99 X\r\n\r\n",
        b"HTTP/1.1 600 X\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ],
)
async def test_a_status_that_is_none_is_garbage_at_once(
    engine: StartEngine, gateway: StartGateway, line: bytes
) -> None:
    """And not an interim answer, after which one would wait for another."""

    async def sick(request: Received) -> None:
        await request.send(line)
        await request.wait_for_leaving()

    gate = await gateway(await engine(sick), reliability={"max_retries": 0})
    async with asyncio.timeout(5):
        answered = await gate.post()
    assert (answered.status_code, answered.json()["error"]["code"]) == (502, "backend_garbage")


# A slash too many


@pytest.mark.parametrize("path", ["/v1/chat/completions/", "/v1/chat/completions//", "/tokenize/"])
async def test_a_call_with_a_slash_too_many_is_served(
    engine: StartEngine, gateway: StartGateway, path: str
) -> None:
    """A redirect behind TLS would lead to ``http://``, where clients drop their key."""
    backend = await engine(chat())
    gate = await gateway(backend)
    answered = await gate.post(path + "?a=b/")
    assert answered.status_code == 200
    assert backend.received[0].head == f"POST {path.rstrip('/')}?a=b/ HTTP/1.1"


async def test_openais_client_finds_models_and_files_with_a_slash_too_many(
    gateway: StartGateway, tmp_path: object
) -> None:
    gate = await gateway(DEAD, batch={"directory": str(tmp_path)})
    openai = AsyncOpenAI(base_url=gate.url, api_key="k", max_retries=0)
    models = await openai.get("/v1/models/", cast_to=httpx.Response)
    assert models.json()["data"][0]["id"] == MODEL
    assert not models.history
    files = await openai.get("/v1/files/?limit=3", cast_to=httpx.Response)
    assert files.json()["data"] == []


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("/metrics/", "../metrics"),
        ("/health/?verbose=1", "../health?verbose=1"),
        ("/workers/a%0d%0ab:c/drain/", "../drain"),
    ],
)
async def test_other_pages_lead_to_themselves_wherever_we_are(
    gateway: StartGateway, path: str, there: str
) -> None:
    """A relative way holds behind TLS and below a prefix."""
    gate = await gateway(DEAD)
    answered = await gate.get(path)
    assert (answered.status_code, answered.headers["location"]) == (307, there)
    assert answered.next_request is not None
    assert answered.next_request.url.raw_path == path.replace("/?", "?").rstrip("/").encode()


@pytest.mark.parametrize("path", ["//evil.example/", "/nothing/", "/v1//", "/metrics//", "/v1/"])
async def test_what_is_nowhere_leads_nowhere(gateway: StartGateway, path: str) -> None:
    gate = await gateway(DEAD)
    reader, writer = await gate.connect()
    writer.write(b"GET " + path.encode() + b" HTTP/1.1\r\nhost: g\r\n\r\n")
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 404 ")
    assert b"location" not in head


async def test_the_admins_port_does_the_same(gateway: StartGateway) -> None:
    gate = await gateway(DEAD)
    app = build_admin_app(gate.relay._rest.state.runtime)  # type: ignore[attr-defined]
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
        answered = await client.get("/debug/fleet/")
    assert (answered.status_code, answered.headers["location"]) == (307, "../fleet")
