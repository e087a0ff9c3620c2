"""The fast front end: hot POST paths go from the parser to the engine, with no ASGI in between.

A subclass of uvicorn's protocol, so that keep-alive, pipelining, draining and every other path
(plain FastAPI) are uvicorn's own. Measured beside the raw-ASGI front end on the same engine: no
scope, no messages, no task and no wake-up per request, one ``write`` per streamed read.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from router.gateway.door import HOT_PATHS, LINGER_S, Door
from router.gateway.engine import Engine
from router.gateway.hot_cycle import HotCycle
from router.gateway.known_heads import Head, known_by
from router.gateway.strict_http import StrictHttp


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
        self._hot: HotCycle | None = None
        self._unknown = b""
        self._last: tuple[bytes, Head] | None = None
        self._ready: HotCycle | None = None
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
        if self._in_request or not self._read_known(data):
            self._parse(data)
        hot = self._hot
        if hot is not None and not hot.response_started:
            hot.go()

    def _read_known(self, data: bytes) -> bool:
        """Take a whole request whose head has been read before, unless another is before it."""
        before, self._unknown = self.cycle, b""
        if self.pipeline or (before is not None and not before.response_complete):
            return False
        key, body_at = known_by(data)
        if self._last is None or key != self._last[0]:
            self._forget_ready()
            head = self.door.heads.get(key)
            self._last = (key, head) if head is not None else None
            if self._last is None:
                self._unknown = key
                return False
        cycle, self._ready = self._ready or self._cycle_for(self._last[1]), None
        self.cycle = cycle
        self._take_turn(cycle)
        cycle.admit()
        cycle.take(data[body_at:])
        cycle.whole = True
        return True

    def _cycle_for(self, head: Head) -> HotCycle:
        return HotCycle(self, self.door.known(head), keep_alive=head.keep_alive)

    def _forget_ready(self) -> None:
        ready, self._ready = self._ready, None
        if ready is not None:
            ready.ready = None  # they refer to each other

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
        self._forget_ready()
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
        key, self._unknown = self._unknown, b""
        named = self._judge_head()
        path, _, query = self.url.partition(b"?")
        if path not in HOT_PATHS or self.parser.get_method() != b"POST":
            self._as_asgi()
            return
        version = self.parser.get_http_version()
        keep_alive = version != "1.0" and self.parser.should_keep_alive()
        before = self.cycle
        call = self.door.call(path, query, self.headers, named)
        cycle = HotCycle(self, call, keep_alive=keep_alive, expects=self.expect_100_continue)
        cycle.knows_chunks = version == "1.1"
        cycle.admit()
        if key and version == "1.1" and cycle.problem is None:  # nothing is kept of who is refused
            self.door.heads.learn(key, Head(path, query, self.headers, named, keep_alive))
        self.cycle = cycle
        if before is None or before.response_complete:
            self._take_turn(cycle)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))  # type: ignore[arg-type]

    def _as_asgi(self) -> None:
        url, expects, headers = self.url, self.expect_100_continue, self.headers
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
        self._forget_ready()
        if self._last is not None:  # clients say the same again: here is what it will come into
            self._ready = self._cycle_for(self._last[1])
            self._ready.prepare()
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
