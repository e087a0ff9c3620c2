"""Fetching from engines that may be broken, slow or hostile; real sockets on the loopback."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from contextlib import suppress

import pytest

from telemetry.http_get import FetchError, HttpGetter
from tests.telemetry.web import page, serving


async def get(url: str, *, timeout_s: float = 5.0, max_bytes: int = 1 << 20) -> bytes:
    getter = HttpGetter()
    try:
        return await getter.get(url, timeout_s=timeout_s, max_bytes=max_bytes)
    finally:
        getter.close()


async def failure(url: str, *, timeout_s: float = 5.0, max_bytes: int = 1 << 20) -> FetchError:
    with pytest.raises(FetchError) as caught:
        await get(url, timeout_s=timeout_s, max_bytes=max_bytes)
    return caught.value


async def test_a_body_is_returned_and_the_request_is_plain() -> None:
    requests: list[bytes] = []

    def answer(n: int, request: bytes) -> bytes:
        requests.append(request)
        return page("hello")

    async with serving(answer) as (url, _):
        assert await get(url + "/metrics?x=1") == b"hello"
    assert requests[0].startswith(b"GET /metrics?x=1 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"Accept-Encoding: identity" in requests[0]


def test_it_works_on_uvloop_whose_transports_are_of_no_asyncio_class() -> None:
    async def fetch() -> bytes:
        async with serving(lambda n, r: page("hello")) as (url, _):
            return await get(url)

    uvloop = pytest.importorskip("uvloop")
    assert uvloop.run(fetch()) == b"hello"


async def test_chunked_and_closed_bodies() -> None:
    chunked = (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    async with serving(lambda n, r: chunked) as (url, _):
        assert await get(url) == b"abcde"
    until_close = b"HTTP/1.1 200 OK\r\n\r\nabc"
    async with serving(lambda n, r: until_close, close=True) as (url, _):
        assert await get(url) == b"abc"


async def test_one_connection_serves_many_requests() -> None:
    async with serving(lambda n, r: page(str(n))) as (url, connections):
        getter = HttpGetter()
        bodies = [await getter.get(url, timeout_s=5, max_bytes=99) for _ in range(3)]
        getter.close()
    assert bodies == [b"0", b"1", b"2"]
    assert connections == [3]


async def test_a_kept_connection_that_the_engine_closed_is_replaced() -> None:
    async with serving(lambda n, r: page(str(n)), close=True) as (url, connections):
        getter = HttpGetter()
        for n in range(3):
            assert await getter.get(url, timeout_s=5, max_bytes=99) == str(n).encode()
        getter.close()
    assert connections == [1, 1, 1]


async def test_statuses_and_redirects_are_failures() -> None:
    async with serving(lambda n, r: page("", "404 Not Found")) as (url, _):
        error = await failure(url)
        assert (error.kind, error.status) == ("status", 404)
    moved = page("", "302 Found", more="location: http://elsewhere/\r\n")
    async with serving(lambda n, r: moved) as (url, connections):
        error = await failure(url)
        assert error.kind == "redirect"
        assert "http://elsewhere/" in str(error)
        assert connections == [1]


async def test_a_body_over_the_limit_is_not_read_to_its_end() -> None:
    async with serving(lambda n, r: page("x" * 1000)) as (url, _):
        assert (await failure(url, max_bytes=999)).kind == "too_large"
    endless = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000
    async with serving(lambda n, r: endless) as (url, _):
        assert (await failure(url, max_bytes=5000)).kind == "too_large"


async def test_silence_and_slow_loris_meet_the_deadline() -> None:
    async with serving(lambda n, r: None) as (url, _):
        assert (await failure(url, timeout_s=0.05)).kind == "timeout"
    promised = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this"
    async with serving(lambda n, r: promised) as (url, _):
        assert (await failure(url, timeout_s=0.05)).kind == "timeout"


async def test_broken_answers_are_failures() -> None:
    half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this"
    async with serving(lambda n, r: half, close=True) as (url, _):
        assert (await failure(url)).kind == "protocol"
    async with serving(lambda n, r: b"SSH-2.0-OpenSSH_9.2\r\n\r\n") as (url, _):
        assert (await failure(url)).kind == "protocol"
    async with serving(lambda n, r: b"", close=True) as (url, _):
        assert (await failure(url)).kind == "connect"


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://x/", "nonsense", "http://", "http://h:99999/"),
        *("http://a..b/", f"http://{'a' * 70}.com/", "http://[::1/"),
    ],
)
async def test_addresses_that_are_none(url: str) -> None:
    assert (await failure(url)).kind == "connect"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_whoever_hangs_up_at_once_is_a_failure_like_others(loop: str) -> None:
    """By then nobody knows whom the connection reached; an engine in a crash loop does that."""
    listener = socket.create_server(("127.0.0.1", 0))

    def hang_up() -> None:
        with suppress(OSError):
            while True:
                accepted, _ = listener.accept()
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                accepted.close()

    async def try_often() -> None:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        for _ in range(50):
            assert (await failure(url)).kind == "connect"

    thread = threading.Thread(target=hang_up, daemon=True)
    thread.start()
    try:
        pytest.importorskip(loop).run(try_often())
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5.0)


async def test_nobody_listens() -> None:
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    assert (await failure(f"http://127.0.0.1:{port}")).kind == "connect"
