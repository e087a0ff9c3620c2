"""One try on one backend: from the bytes sent to the answer's end, or to the reason for none.

Nothing is shown to the client before the backend has really answered: an error status, a silent
close or an error event at the head of a 200 stream (SGLang's way of saying 503) ends the attempt
as a ``Setback``, which the exchange may turn into another attempt elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from router.gateway.connection import Connection
from router.gateway.limits import Limits, Stage, lateness
from router.gateway.problems import Problem, from_engine, in_band
from router.gateway.receiver import UpstreamFailure
from router.gateway.relaying import Relaying
from router.gateway.seams import Owner
from router.gateway.setbacks import refused, unanswered
from router.gateway.tally import Tally, Usage, first_event, is_event_stream
from router.gateway.ticket import Ticket
from router.gateway.upstream import UpstreamPool
from router.gateway.wire import Headers

COMMENT_HOLD_S = 10.0
"""Keep-alive comments are held back this long, so that the status can still become an error;
after that the client's own idle timeout matters more."""
HOLD_BYTES = 65_536
ERROR_BYTES = 65_536


class Attempt(Relaying):
    """Receives one backend's answer.

    Args:
        owner: hears what comes of it.
        ticket: the attempt's entry in the dispatcher's books.
        backend: the backend's name, for messages.
        limits: timeouts.
        give_up_s: when the whole request must be over, on ``clock``'s axis.
        clock: seconds, monotonic.
        now: its time.
        mark: see ``Tally``.

    Attributes:
        finish_reason: why the engine stopped, once it has; empty if it does not say.
    """

    __slots__ = (
        "_again",
        "_backend",
        "_give_up_s",
        "_headers",
        "_held",
        "_limits",
        "_mark",
        "_started_s",
        "_status",
        "finish_reason",
    )

    def __init__(
        self,
        owner: Owner,
        ticket: Ticket,
        *,
        backend: str,
        limits: Limits,
        give_up_s: float,
        clock: Callable[[], float],
        now: float,
        mark: bytes = b"",
    ) -> None:
        super().__init__(owner, ticket, clock, now)
        self._backend = backend
        self._limits = limits
        self._give_up_s = give_up_s
        self._again: tuple[UpstreamPool, Sequence[bytes]] | None = None
        self._mark = mark
        self._started_s = now
        self._status = 0
        self._headers: Headers = []
        self._held = b""
        self.finish_reason = ""

    def begin(
        self, pool: UpstreamPool, request: Sequence[bytes], sent: Connection | None = None
    ) -> None:
        """Send the request, or take over the connection that it was ``sent`` over already."""
        self._again = (pool, request)
        if sent is None:
            self._connection = pool.open(self, request)
        else:
            self._connection = sent
            sent.attach(self)

    def cancel(self) -> None:
        """The client left: the backend must stop working for it. Does nothing when over."""
        self._end(abort=True)
        self._ticket.cancelled(self._clock(), output_tokens=self._tally.output_tokens(None))

    def give_up(self) -> None:
        """Its owner has no use for it any more and keeps the books itself."""
        self._end(abort=True)

    def recalled(self) -> None:
        """The dispatcher took the request back; its books are closed already."""
        self._end(abort=True)
        self._ticket.void()

    # What the backend does (``connection.Receiver``)

    def on_sent(self) -> None:
        """The first-byte clock starts."""
        self.stage = Stage.WAITING
        self._since_s = self._clock()

    def on_head(self, status: int, headers: Headers) -> None:
        """Note what kind of answer comes."""
        self._again = None
        self._status, self._headers = status, headers
        self._tally = Tally(events=is_event_stream(headers), mark=self._mark)
        self.stage = Stage.REFUSED if status >= 400 else Stage.PEEKING

    def on_end(self) -> None:
        """Close the books, or find that there was no answer."""
        if self.stage is Stage.REFUSED:
            headers = dict(self._headers)
            self._refused(from_engine(self._status, self._held, self._backend, headers))
            return
        if self.stage is Stage.PEEKING:
            if self._tally.events and not first_event(self._held, at_end=True):
                self._setback("broken", "ended its answer without a single event")
                return
            self._commit()
        self._end()
        self._owner.answer_ends(self._close_books())

    def on_failed(self, failure: UpstreamFailure) -> None:
        """Try a fresh connection if the old one was only stale; else end."""
        if failure.stale and self._again is not None:
            (pool, request), self._again = self._again, None
            self.stage = Stage.CONNECTING
            self._since_s = self._clock()
            self._connection = pool.open(self, request, fresh=True)
        elif self.stage is Stage.RELAYING:
            self._break(502, f"{failure.message} in mid-answer")
        else:
            self._setback(failure.kind, failure.message)

    # Before the commitment

    def _hold(self, data: bytes) -> None:
        if self.stage is Stage.REFUSED:
            self._held = (self._held + data)[:ERROR_BYTES]
            return
        self._held += data
        if not self._tally.events:
            self._commit()
            return
        event = first_event(self._held)
        problem = in_band(event, self._backend) if event else None
        if problem is not None:
            self._end(abort=True)  # only [DONE] could follow
            self._refused(problem)
        elif event or len(self._held) > HOLD_BYTES or self._held_long_enough():
            self._commit()

    def _held_long_enough(self) -> bool:
        return self._clock() - self._started_s > COMMENT_HOLD_S

    def _commit(self) -> None:
        self.stage = Stage.RELAYING
        self._owner.answer_begins(self._status, self._headers)
        held, self._held = self._held, b""
        self._since_s = self._clock()
        if held:
            self.on_data(held)
        if not self._token_seen and self.stage is Stage.RELAYING:
            self._ticket.committed(self._since_s)

    def _refused(self, problem: Problem) -> None:
        """The backend answered, and the answer is an error."""
        self._end()
        self._owner.attempt_failed(refused(problem))

    def _setback(self, kind: str, message: str) -> None:
        """The backend did not answer."""
        self._end(abort=True)
        self._owner.attempt_failed(unanswered(self._backend, kind, message))

    # The end

    def _break(self, status: int, message: str) -> None:
        self._end(abort=True)
        problem = Problem(status, f"Backend {self._backend} {message}.", code="backend_broken")
        self._owner.answer_breaks(
            problem,
            at_boundary=self._tally.at_event_boundary(),
            output_tokens=self._tally.output_tokens(None),
        )

    def _close_books(self) -> Usage | None:
        now = self._clock()
        end = self._tally.end()
        self.finish_reason = end.finish_reason
        tokens = self._tally.output_tokens(end.usage)
        if end.in_error:
            self._ticket.failed(now, output_tokens=tokens)
        else:
            self._ticket.completed(now, output_tokens=tokens, usage=end.usage)
        return end.usage

    def _end(self, *, abort: bool = False) -> None:
        """Let go of the connection: whole answers have given it back to its pool by now."""
        self.stage = Stage.OVER
        self._again = None
        if self._pipe is not None:
            self._catch_up(self._pipe)
            self._pipe = None
        connection, self._connection = self._connection, None
        if abort and connection is not None:
            connection.abort()

    # Time

    def look(self, now: float) -> None:
        """Called every so often: end the attempt if it is late by now."""
        if self._pipe is not None:
            self._since_s = self._pipe.since_s
        if now >= self._give_up_s or (
            not self._paused and now >= self._since_s + self._limits.at(self.stage)
        ):
            self._timed_out()

    def _timed_out(self) -> None:
        message = lateness(self.stage, whole=self._clock() >= self._give_up_s)
        if self.stage is Stage.RELAYING:
            self._break(504, message)
        else:
            self._setback("timeout", message)
