"""The fast front end: hot POST paths go from the parser to the engine, with no ASGI in between.

A subclass of uvicorn's protocol, so that keep-alive, pipelining, draining and every other path
(plain FastAPI) are uvicorn's own. Measured beside the raw-ASGI front end on the same engine: no
scope, no messages, no task and no wake-up per request, one ``write`` per streamed read.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from router.gateway.anthropic_errors import spoken
from router.gateway.door import HOT_PATHS, LINGER_S, Door, refusal_headers
from router.gateway.engine import Engine
from router.gateway.exchange import Exchange
from router.gateway.problems import Problem
from router.gateway.strict_http import StrictHttp, without_renamed
from router.gateway.wire import Call, Headers

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
        "_size",
        "active",
        "disconnected",
        "exchange",
        "expects",
        "keep_alive",
        "problem",
        "response_complete",
        "response_started",
        "whole",
    )

    message_event = _NOBODY

    def __init__(self, protocol: HotHttp, call: Call, *, keep_alive: bool, expects: bool) -> None:
        self._protocol = protocol
        self._call = call
        self._parts: list[bytes] = []
        self._size = 0
        self._head = b""
        self._chunked = False
        self.keep_alive = keep_alive
        self.expects = expects
        self.active = self.whole = self.disconnected = False
        self.response_started = self.response_complete = False
        self.exchange: Exchange | None = None
        self.problem = protocol.door.refusal(call)

    # The request

    def take(self, part: bytes) -> None:
        """Some of the body; called from inside the parser."""
        if self.problem is not None:
            return
        self._parts.append(part)
        self._size += len(part)
        if self._size > self._protocol.door.max_body_bytes:
            self._parts.clear()
            self.problem = self._protocol.door.too_large()

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
            exchange = protocol.engine.open(self._call, self)
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
            self._chunked = self._protocol.parser_version == "1.1"
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
        self._protocol.transport.write(data)

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


class HotHttp(StrictHttp):
    """One client connection.

    Args:
        engine: relays the hot requests.
        door: who and what is let in.
        for_uvicorn: what uvicorn passes to every protocol.
    """

    cycle: Any  # a HotCycle or uvicorn's RequestResponseCycle

    def __init__(self, engine: Engine, door: Door, **for_uvicorn: Any) -> None:
        super().__init__(**for_uvicorn)
        self.engine = engine
        self.door = door
        self.parser_version = "1.1"
        self._hot: HotCycle | None = None
        self._quiet_since_s = 0.0
        self._deaf = False
        self._defaults: list[tuple[bytes, bytes]] = []
        self._default_lines = b""

    # Called by the event loop

    def data_received(self, data: bytes) -> None:
        """One read.

        Requests are acted on after the parser has returned: an error of ours inside one of its
        callbacks would pass for an error of the client.
        """
        if self._deaf:
            return
        self._parse(data)
        hot = self._hot
        if hot is not None and not hot.response_started:
            hot.go()

    def default_lines(self) -> bytes:
        """Header lines that every answer has; uvicorn makes a new list whenever they change."""
        defaults = self.server_state.default_headers
        if defaults is not self._defaults:
            self._defaults = defaults
            self._default_lines = b"".join([b"%b: %b\r\n" % pair for pair in defaults])
        return self._default_lines

    def linger(self) -> None:
        """Close after an answer to a request that is still being sent.

        Closing at once would reset the connection, and the client might never see the answer.
        """
        self._deaf = True
        self.loop.call_later(LINGER_S, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: its backend is told at once."""
        hot, self._hot = self._hot, None
        if hot is not None:
            hot.left()
        self.pipeline.clear()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads slowly: so do we."""
        super().pause_writing()
        if self._hot is not None and self._hot.exchange is not None:
            self._hot.exchange.pause()

    def resume_writing(self) -> None:
        """It caught up."""
        super().resume_writing()
        if self._hot is not None and self._hot.exchange is not None:
            self._hot.exchange.resume()

    # Called by httptools

    def on_message_begin(self) -> None:
        """A request begins; most need no ASGI scope."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._in_request, self._head_whole = True, False
        self._head_bytes = 0
        self.scope = None  # type: ignore[assignment]

    def on_headers_complete(self) -> None:
        """Hot or not?"""
        self._head_whole = True
        path, _, query = self.url.partition(b"?")
        if path not in HOT_PATHS or self.parser.get_method() != b"POST":
            self._as_asgi()
            return
        named = self._judge_head()
        self.parser_version = version = self.parser.get_http_version()
        keep_alive = version != "1.0" and self.parser.should_keep_alive()
        before = self.cycle
        call = self.door.call(path, query, self.headers, named)
        cycle = HotCycle(self, call, keep_alive=keep_alive, expects=self.expect_100_continue)
        self.cycle = cycle
        if before is None or before.response_complete:
            self._take_turn(cycle)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))  # type: ignore[arg-type]

    def _as_asgi(self) -> None:
        url, expects = self.url, self.expect_100_continue
        headers = without_renamed(self.headers)
        HttpToolsProtocol.on_message_begin(self)
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        HttpToolsProtocol.on_headers_complete(self)

    def on_body(self, body: bytes) -> None:
        """Some of the body."""
        if type(self.cycle) is HotCycle:
            self.cycle.take(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is there."""
        if type(self.cycle) is not HotCycle:
            super().on_message_complete()
            return
        self._in_request = False
        if self._patience is not None:
            self._calm()
        self.cycle.whole = True

    # Turns: one answer at a time

    def _take_turn(self, cycle: HotCycle) -> None:
        cycle.active = True
        self._hot = cycle

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if type(cycle) is HotCycle:
            self._take_turn(cycle)
            self.loop.call_soon(cycle.go)
        else:
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """An answer is complete: the next in line, or the wait for another request.

        One timer a connection looks now and then how long it has been quiet, instead of one
        per answer.
        """
        self._hot = None
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            return
        self._quiet_since_s = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it has been quiet for long."""
        self.timeout_keep_alive_task = None
        if self._in_request or (self.cycle is not None and not self.cycle.response_complete):
            return  # the end of the answer sets the timer anew
        left_s = self._quiet_since_s + self.timeout_keep_alive - self.loop.time()
        if left_s <= 0:
            self.transport.close()
        else:
            self.timeout_keep_alive_task = self.loop.call_later(
                left_s, self.timeout_keep_alive_handler
            )
