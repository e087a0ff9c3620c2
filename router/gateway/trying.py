"""The backends' side of an exchange: one attempt or several, elsewhere, in halves, in a race."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from router.domain.decision import Decision, Reject
from router.domain.fleet import BackendSpec
from router.gateway.answering import Answering
from router.gateway.attempt import Attempt
from router.gateway.continuation.attempt import RememberedAttempt
from router.gateway.continuation.going_on import GoingOn
from router.gateway.halves import Halves
from router.gateway.problems import Problem
from router.gateway.race import Race, Second
from router.gateway.seams import Client, Owner, Setback
from router.gateway.tally import TOKEN_MARKS, Usage
from router.gateway.ticket import Ticket
from router.gateway.told import all_tried, not_the_clients
from router.gateway.upstream import UpstreamPool
from router.gateway.wire import Call, Headers

if TYPE_CHECKING:
    from router.gateway.engine import Engine


class Trying(Answering):
    """Sends the request, and elsewhere where that may help; ``Exchange`` decides and tells.

    Attributes:
        attempt: the one under way; ``None`` while there is none.
    """

    __slots__ = (
        "_asked",
        "_give_up_s",
        "_going_on",
        "_halves",
        "_over",
        "_paused",
        "_race",
        "_size_bytes",
        "_streams",
        "_ticket",
        "attempt",
    )

    def __init__(self, engine: Engine, call: Call, client: Client) -> None:
        super().__init__(engine, call, client)
        self.attempt: Attempt | None = None
        self._ticket: Ticket | None = None
        self._race: Race | None = None
        self._halves: Halves | None = None
        self._asked = ""
        self._size_bytes = 0
        self._streams = False
        self._give_up_s = 0.0
        self._over = self._paused = False
        self._going_on: GoingOn | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self._over

    @abstractmethod
    def _follow(self, decision: Decision, now: float) -> None:
        """Do what was decided."""

    @abstractmethod
    def answer_begins(self, status: int, headers: Headers) -> None:
        """See ``seams.Owner``."""

    @abstractmethod
    def answer_ends(self, usage: Usage | None) -> None:
        """See ``seams.Owner``."""

    @abstractmethod
    def answer_breaks(self, problem: Problem, *, at_boundary: bool, output_tokens: int) -> None:
        """See ``seams.Owner``."""

    def _try(self, backend: BackendSpec, now: float, prefill: BackendSpec | None = None) -> None:
        engine = self.engine
        assert self.request is not None
        self._backend = backend
        first = not self._tried
        self._tried.append(backend.name)
        if prefill is not None:
            self._ticket = Ticket(engine.dispatcher, self.request.request_id, engine.poke)
            self._prefill = prefill
            self._halves = Halves(self, prefill, backend)
            self._halves.begin(now)
            self._sent(prefill, now, first=first)
            return
        # What can wait does until the request is on its way; nothing happens before this returns.
        pool = engine.pool(backend)
        request = self._request_for(backend, pool, self.body)
        sent = pool.send_ahead(request)
        try:
            engine.dispatcher.book()
            self._ticket = Ticket(engine.dispatcher, self.request.request_id, engine.poke)
            self.attempt = self.attempt_at(backend, self, self._ticket, now)
        except Exception:
            if sent is not None:
                sent.abort()  # nobody would read the answer
            raise
        self.attempt.begin(pool, request, sent)
        self._sent(backend, now, first=first)
        if not self._streams:
            engine.presumed.at(now + engine.backlog_s(backend.name, now), self._ticket)
        if engine.dispatcher.hedging is not None and self._streams and not self._status:
            self._race = self._race or Race(self)
            self._race.plan(self.request.request_id, now)

    def _sent(self, backend: BackendSpec, now: float, *, first: bool) -> None:
        """Tell who counts."""
        engine, request = self.engine, self.request
        assert request is not None
        if first:
            engine.events.waited(request.model, now - request.arrival_s)
        if engine.sent is not None:
            engine.sent(request, backend.name)

    # For its race, and for two backends that share it

    @property
    def body(self) -> bytes:
        """What is asked of a backend."""
        return self._call.body if self._going_on is None else self._going_on.body

    def begin_answer(self, backend: BackendSpec, body: bytes, now: float) -> None:
        """The second of two halves begins."""
        assert self._ticket is not None
        self.attempt = self.attempt_at(backend, self, self._ticket, now)
        self.send(self.attempt, backend, body)

    def prompt_computed(self, now: float) -> None:
        """The first of two halves is over."""
        assert self._ticket is not None
        self._ticket.prefilled(now)

    def prompt_failed(self, setback: Setback) -> None:
        """The first of two halves came to nothing; so does the second."""
        attempt, self.attempt = self.attempt, None
        if attempt is not None:
            attempt.give_up()
        self.attempt_failed(setback, prefill=True)

    def attempt_at(
        self,
        backend: BackendSpec,
        owner: Owner,
        ticket: Ticket,
        now: float,
        *,
        remembered: bool = True,
    ) -> Attempt:
        """An attempt that may be sent; ``remembered`` if it may have to be gone on with."""
        engine = self.engine
        going = self._going_on if remembered else None
        kind = Attempt if going is None else RememberedAttempt
        attempt = kind(
            owner,
            ticket,
            backend=backend.name,
            limits=engine.limits,
            give_up_s=self._give_up_s,
            clock=engine.now,
            now=now,
            mark=TOKEN_MARKS.get(self._call.path, b""),
        )
        if going is not None:
            cast(RememberedAttempt, attempt).transcript = going.transcript
        return attempt

    def send(self, attempt: Attempt, backend: BackendSpec, body: bytes | None = None) -> None:
        """Send the client's request there, or what is made of it for one half."""
        pool = self.engine.pool(backend)
        attempt.begin(pool, self._request_for(backend, pool, self.body if body is None else body))

    def _request_for(
        self, backend: BackendSpec, pool: UpstreamPool, body: bytes
    ) -> Sequence[bytes]:
        return self.engine.upstream_request(self._call, body, self._asked, backend, pool.address)

    def promote(self, second: Second) -> None:
        """From now on the second attempt is the only one."""
        self.attempt, self._ticket = second.attempt, second.ticket
        self._backend = second.backend
        self._tried.append(second.backend.name)

    # Elsewhere

    def _retry(self, setback: Setback, ticket: Ticket, *, prefill: bool = False) -> None:
        engine = self.engine
        now = engine.now()
        tries = 1 + engine.limits.retries
        if self._going_on is not None:
            tries += self._going_on.transcript.continuations
        if len(self._tried) >= tries or now >= self._give_up_s:
            ticket.failed(now, backpressure=setback.backpressure, prefill=prefill)
            self._answer(all_tried(setback.problem, self._tried))
            return
        failed = self._halves.prefill.name if prefill and self._halves else self._tried[-1]
        self._halves = self._prefill = None
        decision = ticket.moved(now, backpressure=setback.backpressure, prefill=prefill)
        if isinstance(decision, Reject):
            self._answer(all_tried(setback.problem, self._tried))
        else:
            engine.events.retried(failed, setback.reason)
            self._follow(decision, now)

    def go_on(self, decision: Decision, now: float) -> None:
        """Another backend is to go on with the stream."""
        self.attempt = None
        if self._halves is not None:
            self._halves.end()
            self._halves = self._prefill = None
        self._follow(decision, now)

    def attempt_failed(self, setback: Setback, *, prefill: bool = False) -> None:
        """Elsewhere, if elsewhere may do better; ``prefill`` if the first of two halves failed."""
        self.attempt = None
        ticket = self._ticket
        assert ticket is not None
        if self._halves is not None:
            self._halves.end()
        if setback.reason == "model" and self.engine.is_adapter(self._asked):
            setback = replace(setback, backpressure=True)  # it may serve all others well
        if not setback.retryable:
            ticket.refused(self.engine.now())
            failed = self._halves.prefill.name if prefill and self._halves else self._tried[-1]
            self._answer(not_the_clients(self.engine, setback.problem, failed))
        elif self._race is None or not self._race.first_failed(self._tried[-1], ticket, setback):
            self._retry(setback, ticket, prefill=prefill)
