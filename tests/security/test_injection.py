"""Nothing a client or an engine says becomes a request, a line of a log, markup or a path."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from pathlib import Path

import pytest

from router.cli.logs import log_formatter
from router.config.access import AdminSection
from router.domain.errors import ConfigError
from router.gateway.admin.addresses import check
from router.gateway.dashboard.api import ASSETS
from telemetry.http_get import FetchError, HttpGetter
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import MODEL, REQUEST, Received, answer, chat, eventually

FORGED = b"POST /v1/completions HTTP/1.1\r\nhost: e\r\ncontent-length: 0\r\n\r\n"


# Between gateway and engine


@pytest.mark.parametrize(
    "line",
    [
        b"x-a: b\rPOST /evil HTTP/1.1",
        b"x-a: b\x00c",
        b"x-a: b\n" + FORGED,
        b"x-request-id: a\rb",
        b"x a: b",
        b"x-a\x0b: b",
        b": b",
        b"x-a: b\r\n folded: c",
    ],
)
async def test_a_header_never_becomes_a_second_request(
    engine: StartEngine, gateway: StartGateway, line: bytes
) -> None:
    backend = await engine(chat())
    gate = await gateway(backend)
    reader, writer = await gate.connect()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nconnection: close\r\n"
    writer.write(head + b"content-length: %d\r\n" % len(REQUEST) + line + b"\r\n\r\n" + REQUEST)
    async with asyncio.timeout(10):
        raw = await reader.read()
    writer.close()
    assert raw.startswith((b"HTTP/1.1 400", b"HTTP/1.1 200"))
    assert len(backend.received) <= 1
    for got in backend.received:
        assert got.head == "POST /v1/chat/completions HTTP/1.1"
        assert got.body == REQUEST
        assert not any(set("\r\n\x00") & set(value) for value in got.headers.values())


async def test_bytes_behind_an_answer_are_nobodys_answer(
    engine: StartEngine, gateway: StartGateway
) -> None:
    """A sick engine that sends two answers to one request must not answer the next client."""

    async def two(request: Received) -> bool:
        evil = b'HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n"evil"'
        await request.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}" + evil)
        return True

    gate = await gateway(await engine(two))
    async with gate.client() as client:
        for _ in range(5):
            assert (await client.post("/v1/chat/completions", content=REQUEST)).text == "{}"


async def test_an_engines_headers_do_not_split_the_answer(
    engine: StartEngine, gateway: StartGateway
) -> None:
    odd = answer(200, {"choices": []}, ("x-a", "b\rset-cookie: c=d"))
    gate = await gateway(await engine(odd))
    got = await gate.post()
    assert "set-cookie" not in got.headers


async def test_what_follows_the_body_is_no_header_of_the_answer(
    engine: StartEngine, gateway: StartGateway
) -> None:
    """Trailers come after a head that has been read, in the same read or in a later one."""
    trailers = b"set-cookie: c=d\r\nconnection: content-type\r\nx-a: b\r\n\r\n"

    async def behave(request: Received) -> bool:
        await request.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntrailer: x-a\r\n"
            b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n" + trailers
        )
        return True

    backend = await engine(behave)
    gate = await gateway(backend)
    async with gate.client() as client:
        for _ in range(2):
            got = await client.post("/v1/chat/completions", content=REQUEST)
            assert (got.text, got.headers["content-type"]) == ("{}", "application/json")
            assert not {"set-cookie", "x-a"} & set(got.headers)
    assert backend.connections == 1


# Where workers may be


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "2852039166",
        "0xA9FEA9FE",
        "0251.0376.0251.0376",
        "169.254.43518",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "[::]",
        "0.0.0.0",
        "0",
        "224.0.0.1",
        "255.255.255.255",
        "user@169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
    ],
)
async def test_no_spelling_of_a_metadata_address_is_a_worker(host: str) -> None:
    with pytest.raises(ConfigError):
        await check(f"http://{host}:80/v1", AdminSection())


@pytest.mark.parametrize("url", ["file:///etc/passwd", "gopher://h:1/", "ftp://h/", "//h:1", ""])
async def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="may be reached by"):
        await check(url, AdminSection())


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://127.0.0.1:1/a b", "http://127.0.0.1:1\r\nx: y", "http://h\t:1"]
)
async def test_no_url_of_a_worker_is_more_than_an_address(gateway: StartGateway, url: str) -> None:
    gate = await gateway("http://127.0.0.1:9", admin={"api_keys": ["ops"]})
    entry = {"url": url, "model": MODEL, "gpu": "l4"}
    async with gate.client(authorization="Bearer ops") as client:
        refused = await client.post("/workers", json=entry)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "bad_worker")
        torn = await client.post(
            "/workers", content=b"{", headers={"content-type": "application/json"}
        )
        assert "is not valid JSON" in torn.json()["error"]["message"]


async def test_no_redirect_is_followed(engine: StartEngine, gateway: StartGateway) -> None:
    """Neither by the relay nor by what reads the engines."""
    inside = await engine(chat())
    away = ("location", f"{inside.url}/latest/meta-data")
    gate = await gateway(await engine(answer(307, b"", away)))
    async with gate.client() as client:
        got = await client.post("/v1/chat/completions", content=REQUEST)
        assert got.status_code == 307, "it is the client's to follow"
    moved = await engine(chat())
    moved.probe_status = 307
    getter = HttpGetter()
    with pytest.raises(FetchError, match="not followed"):
        await getter.get(f"{moved.url}/metrics", timeout_s=5.0, max_bytes=1000)
    getter.close()
    assert not inside.received
    assert not inside.probes


# Logs


@pytest.mark.parametrize("style", ["text", "json"])
async def test_nobody_forges_a_line_of_the_log(
    engine: StartEngine, gateway: StartGateway, caplog: pytest.LogCaptureFixture, style: str
) -> None:
    caplog.set_level(logging.INFO)
    forged = "x\n2026-01-01 00:00:00 ERROR motley.gateway: all is lost\r\x1b[2K\u2028\x85"
    ill = answer(500, {"error": {"message": forged}})
    gate = await gateway(await engine(ill), server={"access_log": True})
    body = json.dumps({"model": forged, "messages": []}).encode()
    await gate.post(body=body, x_session_id="a")
    await gate.post(x_request_id="a b", x_tenant_id="t\tt")
    await eventually(lambda: any(r.name == "motley.access" for r in caplog.records))
    formatter = log_formatter(style)
    for record in caplog.records:
        line = formatter.format(record)
        if record.exc_info is None:
            assert not set(line) & set(map(chr, range(32))), repr(line)
            assert style == "json" or line.isprintable(), repr(line)


# The page


def test_the_page_renders_no_markup_of_others() -> None:
    """Preact escapes what it renders; nothing of ours goes around it."""
    static = Path("router/gateway/dashboard/static")
    ways_around = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\("
    )
    for name in ASSETS:
        if name.endswith(".js") and not name.startswith("vendor/"):
            found = ways_around.search((static / name).read_text())
            assert found is None, (name, found)
    assert "<script>" not in (static / "index.html").read_text(), "inline scripts are forbidden"


async def test_answers_are_never_taken_for_pages(gateway: StartGateway) -> None:
    gate = await gateway("http://127.0.0.1:9")
    page = await gate.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    for path in ("/<script>alert(1)</script>", "/v1/models/<img src=x>", "/debug/decisions/<b>"):
        got = await gate.get(path)
        assert got.headers["content-type"].startswith("application/json"), path
    body = json.dumps({"model": "<script>alert(1)</script>"}).encode()
    assert (await gate.post(body=body)).headers["content-type"] == "application/json"


# Requests that another page makes a browser send


async def test_a_foreign_page_changes_nothing(engine: StartEngine, gateway: StartGateway) -> None:
    """Nothing authenticates by itself (no cookies), nobody is told that they may (no CORS), and
    without keys nothing can be changed at all."""
    backend = await engine(chat())
    for settings in ({}, {"admin": {"api_keys": ["admin-key"]}}):
        gate = await gateway(backend, **settings)
        foreign = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
        for method, path in (
            ("POST", "/workers"),
            ("POST", f"/add_worker?url={backend.url}"),
            ("POST", "/workers/e0/drain"),
            ("POST", "/reload"),
            ("DELETE", "/workers/e0"),
            ("POST", f"/remove_worker?url={backend.url}"),
        ):
            async with gate.client() as client:
                plain = {"content-type": "text/plain", **foreign}
                got = await client.request(method, path, headers=plain, content=b"{}")
                assert got.status_code in (401, 403), (method, path, got.text)
                asked = {"access-control-request-method": method, **foreign}
                preflight = await client.options(path.partition("?")[0], headers=asked)
                for answered in (got, preflight):
                    assert not [h for h in answered.headers if h.startswith("access-control")]
                    assert "set-cookie" not in answered.headers
        assert [b.spec.name for b in gate.relay.engine.dispatcher.state.backends] == ["e0"]
        assert not gate.relay.engine.dispatcher.state.get("e0").draining
    assert MODEL
