"""One hot request on its way through the fast front end (``hot_http``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from router.gateway.anthropic_errors import spoken
from router.gateway.door import refusal_headers
from router.gateway.exchange import Exchange
from router.gateway.problems import Problem
from router.gateway.wire import Call, Headers

if TYPE_CHECKING:
    from router.gateway.hot_http import HotHttp

_BODILESS = (204, 304)


class _Nobody:
    """Nobody waits for a hot request's messages."""

    def set(self) -> None:
        """Wake nobody."""


_NOBODY = _Nobody()


class HotCycle:
    """One hot request on its way through: takes the body, then is the engine's ``Client``.

    Stands where uvicorn keeps a ``RequestResponseCycle``, whose public flags it shares.
    """

    __slots__ = (
        "_call",
        "_chunked",
        "_head",
        "_parts",
        "_protocol",
        "_send",
        "_size",
        "active",
        "disconnected",
        "exchange",
        "expects",
        "keep_alive",
        "knows_chunks",
        "problem",
        "ready",
        "response_complete",
        "response_started",
        "whole",
    )

    message_event = _NOBODY

    def __init__(
        self, protocol: HotHttp, call: Call, *, keep_alive: bool, expects: bool = False
    ) -> None:
        self._protocol = protocol
        self._send = protocol.transport.write
        self._call = call
        self._parts: list[bytes] = []
        self._size = 0
        self._head = b""
        self._chunked = False
        self.knows_chunks = True
        self.keep_alive = keep_alive
        self.expects = expects
        self.active = self.whole = self.disconnected = False
        self.response_started = self.response_complete = False
        self.exchange: Exchange | None = None
        self.ready: Exchange | None = None
        self.problem: Problem | None = None

    # The request

    def prepare(self) -> None:
        """Do beforehand what needs no body."""
        self.ready = self._protocol.engine.prepare(self._call, self)

    def admit(self) -> None:
        """The head is there: let it in, or know why not."""
        self.problem = self._protocol.door.refusal(self._call)
        if self.problem is not None:
            self.ready = None

    def take(self, part: bytes) -> None:
        """Some of the body; called from inside the parser."""
        if self.problem is not None:
            return
        self._parts.append(part)
        self._size += len(part)
        if self._size > self._protocol.door.max_body_bytes:
            self._parts.clear()
            self.problem = self._protocol.door.too_large()
            self.ready = None

    def go(self) -> None:
        """Do what can be done by now, if it is this request's turn."""
        if not self.active or self.response_started or self.disconnected:
            return
        if self.problem is not None:
            self._refuse(self.problem)
        elif self.whole and self.exchange is None:
            parts, self._parts = self._parts, []
            self._call.body = parts[0] if len(parts) == 1 else b"".join(parts)
            del parts
            protocol = self._protocol
            ready, self.ready = self.ready, None
            exchange = protocol.engine.open(self._call, self, ready)
            if self.response_complete:
                return
            self.exchange = exchange
            if protocol.flow.write_paused:
                exchange.pause()
        elif self.expects:
            self.expects = False
            self._protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _refuse(self, problem: Problem) -> None:
        self.keep_alive = False
        problem = spoken(problem, self._call.path)
        self.start(problem.status, refusal_headers(problem, self._call.request_id))
        self.write(problem.body())
        if self.whole:
            self.end()
        else:
            self._protocol.linger()

    def left(self) -> None:
        """The client is gone."""
        self.disconnected = True
        self.ready = None
        self._parts.clear()
        if self.exchange is not None:
            self.exchange.client_left()

    # ``seams.Client``

    def start(self, status: int, headers: Headers) -> None:
        """Status and headers; they leave with the first of the body."""
        self.response_started = True
        names = dict(headers)
        if b"connection" in names:
            headers = [pair for pair in headers if pair[0] != b"connection"]
        lines = [b"%b: %b\r\n" % pair for pair in headers]
        if b"content-length" not in names and status not in _BODILESS:
            self._chunked = self.knows_chunks
            if self._chunked:
                lines.append(b"transfer-encoding: chunked\r\n")
            else:
                self.keep_alive = False
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        fixed = self._protocol.default_lines()
        self._head = b"%b%b%b\r\n" % (STATUS_LINE[status], fixed, b"".join(lines))

    def write(self, data: bytes) -> None:
        """Some of the body."""
        if self.disconnected:
            return
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if self._head:
            data, self._head = self._head + data, b""
        self._send(data)

    def raw_sink(self) -> Callable[[bytes], None] | None:
        """Chunks may pass as they are where the client gets chunks."""
        return self._send if self._chunked and not self._head else None

    def end(self) -> None:
        """The answer is complete."""
        self.response_complete = True
        self.exchange = None  # they refer to each other, and the collector's time is dear
        protocol = self._protocol
        if self.disconnected:
            return
        if self._chunked:
            protocol.transport.write(self._head + b"0\r\n\r\n")
        elif self._head:
            protocol.transport.write(self._head)
        self._head = b""
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()

    def cut(self) -> None:
        """Send what there is and close without an end, so that the client sees the cut."""
        self.response_complete = True
        self.exchange = None
        if not self.disconnected:
            self._protocol.transport.close()
