"""uvicorn's HTTP/1.1 protocol, made strict: limits, patience, and errors in the one shape.

Served as it is, it carries the raw-ASGI front end; ``hot_http`` adds the fast path. It leans on
the inside of ``HttpToolsProtocol``, so pyproject pins uvicorn's range and one test suite runs
over both front ends.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from router.gateway import door
from router.gateway.door import refusal_headers, upload_timeout
from router.gateway.problems import Problem
from router.gateway.request_id import request_id_of
from router.gateway.wire import Headers

MAX_TARGET_BYTES = 8_192
MAX_HEADERS = 128
MAX_HEAD_BYTES = 65_536

_ONLY_ONCE = frozenset((b"host", b"authorization", b"x-api-key", b"content-type"))
"""Headers of which a second one means that somebody on the way reads another than we do."""


_UPGRADE = re.compile(rb"\r\nupgrade(?=[ \t]*:)", re.IGNORECASE)
_NO_UPGRADE = b"x-no-up"


def without_upgrade(data: bytes) -> bytes:
    """The first read of a request with its ``Upgrade`` header renamed, at the same length.

    A server may ignore that header, but the parser would take the body for another protocol's.
    Java's HTTP client asks for h2c with every first request, its body included.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0 or _UPGRADE.search(data, 0, end) is None:
        return data
    return _UPGRADE.sub(b"\r\n" + _NO_UPGRADE, data[:end]) + data[end:]


def without_renamed(headers: Headers) -> Headers:
    """Headers less the one that ``without_upgrade`` renamed."""
    return [pair for pair in headers if pair[0] != _NO_UPGRADE]


def _too_long() -> Problem:
    message = f"The request's head is longer than {MAX_HEAD_BYTES} bytes."
    return Problem(431, message, code="bad_http")


def _until_closed(app: Any, cycle: Any) -> Any:
    """Serve a client that knows no chunks: an answer without a length ends with the connection,
    where uvicorn would send chunks even so."""

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        framed = False

        async def plainly(message: Any) -> None:
            nonlocal framed
            if message["type"] == "http.response.start":
                framed = b"content-length" in dict(message.get("headers", ()))
                if not framed:
                    cycle.chunked_encoding = False
            elif not framed:
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await app(scope, receive, plainly)

    return serve


class _Fault(Exception):  # noqa: N818 - never leaves this module
    """Stops the parser from inside one of its callbacks."""


class StrictHttp(HttpToolsProtocol):
    """One client connection."""

    _fault: Problem | None = None
    _patience: asyncio.TimerHandle | None = None
    _in_request = False
    _head_whole = False
    _head_bytes = _read_bytes = 0

    # Called by the event loop

    def connection_made(self, transport: Any) -> None:
        """Somebody connected; an idle connection does not stay for ever."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def data_received(self, data: bytes) -> None:
        """One read; bad HTTP ends the connection with an answer that says so."""
        self._unset_keepalive_if_required()
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        self._read_bytes = len(data)
        if not self._in_request:
            data = without_upgrade(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Nothing here can be upgraded to: the request is answered as if it had not asked.
            self._last_request()
        except httptools.HttpParserError:
            problem, self._fault = self._fault, None
            self.refuse(problem or Problem(400, "This is not HTTP/1.1.", code="bad_http"))
            return
        if self._in_request:
            if not self._head_whole:
                self._head_bytes += len(data)
                if self._head_bytes > MAX_HEAD_BYTES:
                    self.refuse(_too_long())
                    return
            self._await_more()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._calm()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if cycle.scope["http_version"] != "1.1":
            app = _until_closed(app, cycle)
        super()._start_asgi_task(cycle, app)

    # Patience: a request must keep coming

    def _await_more(self) -> None:
        """Called after each read that left a request unfinished: the head has a deadline, the
        body must keep coming."""
        if self._patience is None or self._head_whole:
            self._calm()
            self._patience = self.loop.call_later(door.UPLOAD_IDLE_S, self._impatient)

    def _impatient(self) -> None:
        self._patience = None
        # While we ourselves do not read, it is not the client who is slow.
        if self._in_request and self.flow is not None and not self.flow.read_paused:
            self.refuse(upload_timeout())

    def _calm(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    # Answers of the connection itself

    def refuse(self, problem: Problem) -> None:
        """Answer what cannot be read on, and close; in mid-answer only close."""
        cycle = self.cycle
        if self.transport.is_closing():
            return
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started or self.pipeline:
                self.transport.close()
                return
        headers = self.server_state.default_headers + refusal_headers(problem, request_id_of(None))
        lines = [b"%b: %b\r\n" % pair for pair in headers]
        head = b"".join([STATUS_LINE[problem.status], *lines, b"\r\n"])
        self.transport.write(head + problem.body())
        self.transport.close()

    def _last_request(self) -> None:
        if self.cycle is not None:
            self.cycle.keep_alive = False

    # Called by httptools

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_request, self._head_whole = True, False
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Some of the target."""
        self.url += url
        if len(self.url) > MAX_TARGET_BYTES:
            self._stop(414, f"The request target is longer than {MAX_TARGET_BYTES} bytes.")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; judged when all are there."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._head_whole = True
        self._judge_head()
        super().on_headers_complete()

    def _judge_head(self) -> dict[bytes, bytes]:
        """Headers by name, once the head is found to be fit to be answered."""
        headers = self.headers
        named = dict(headers)
        if _NO_UPGRADE in named:
            del named[_NO_UPGRADE]
            headers[:] = without_renamed(headers)
        if len(headers) > MAX_HEADERS:
            self._stop(431, f"More than {MAX_HEADERS} headers.")
        if self._head_bytes + self._read_bytes > MAX_HEAD_BYTES:
            size = len(self.url) + sum(len(name) + len(value) for name, value in headers)
            if size > MAX_HEAD_BYTES:
                self._fault = _too_long()
                raise _Fault
        self._judge_names(named)
        if b"expect" in named and named[b"expect"].lower() == b"100-continue":
            self.expect_100_continue = self.parser.get_http_version() == "1.1"
        return named

    def _judge_names(self, named: dict[bytes, bytes]) -> None:
        if self.parser.should_upgrade():  # its head came in pieces
            self._stop(400, "Connections are not upgraded here. Leave out the header 'Upgrade'.")
        if len(named) < len(self.headers):
            for name in _ONLY_ONCE:
                if sum(name == known for known, _ in self.headers) > 1:
                    self._stop(400, f"The header {name.decode()!r} may be sent only once.")
        if named.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
            self._stop(400, "The only transfer coding that is understood here is 'chunked'.")

    def on_message_complete(self) -> None:
        """The request is there."""
        self._in_request = False
        self._calm()
        super().on_message_complete()

    def _stop(self, status: int, message: str) -> None:
        self._fault = Problem(status, message, code="bad_http")
        raise _Fault
