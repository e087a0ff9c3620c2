"""One client request, from its bytes to its end: decide, wait, try, try elsewhere, answer.

Driven by callbacks: the front end hands in a ``Call`` and a ``Client``; backends answer through
``Attempt``; the dispatcher's queue answers through ``decided``. Whatever happens, it ends once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from router.domain.decision import Assign, Decision, Reject
from router.domain.fleet import BackendSpec
from router.gateway.answering import Answering
from router.gateway.attempt import Attempt
from router.gateway.continuation.attempt import RememberedAttempt
from router.gateway.continuation.going_on import GoingOn, going_on
from router.gateway.halves import Halves
from router.gateway.multipart import fields_of
from router.gateway.problems import Problem, from_reject, model_gone
from router.gateway.race import Race, Second
from router.gateway.seams import LEFT_EARLY, NO_MODEL, Client, Owner, Setback
from router.gateway.tally import TOKEN_MARKS, Usage
from router.gateway.ticket import Ticket
from router.gateway.told import LOAD, NOT_FOR_CLIENTS, all_tried, not_the_clients
from router.gateway.wire import (
    BadRequestError,
    Call,
    Headers,
    end_to_end,
    prompt_bytes,
)

if TYPE_CHECKING:
    from router.gateway.engine import Engine

MOST_GAPS = 256
"""Of a stream that is longer, they are counted as they come: memory is for those who wait."""


class Exchange(Answering):
    """Implements ``seams.Owner``.

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

    # Driven by the front end and the queue

    def begin(self) -> None:
        """Understand the request and ask the dispatcher for a backend."""
        engine, call = self.engine, self._call
        try:
            fields = fields_of(call.body, call.content_type, engine.max_json_depth)
            size_bytes = prompt_bytes(call.body)
            request = self.request = engine.request_of(call, fields, size_bytes)
        except BadRequestError as error:
            engine.events.rejected(NO_MODEL, error.problem.code or "bad_request")
            self._answer(error.problem)
            return
        self._asked = fields.model or ""
        refusal = engine.enter(call, self._asked, request) if call.caller is not None else None
        if refusal is not None:
            self._reason = refusal.code or "forbidden"
            engine.events.rejected(self._label(unknown=True), self._reason)
            self._answer(refusal)
            return
        # Base64 costs tokens by no ratio: such a body teaches nothing.
        whole = len(call.body)
        self._size_bytes = whole if size_bytes == whole else 0
        self._streams = fields.stream is True
        self._give_up_s = request.arrival_s + engine.limits.total_s
        if engine.continuation is not None:
            self._going_on = going_on(self, call, fields, engine.continuation)
        engine.joined(self, request.request_id)
        decision = engine.dispatcher.dispatch(request, request.arrival_s)
        decided_s = engine.now()
        engine.events.worked("dispatch", decided_s - request.arrival_s)
        self._follow(decision, decided_s)

    def decided(self, decision: Decision) -> None:
        """The dispatcher's queue let the request go."""
        if not self._over:
            self._follow(decision, self.engine.now())

    def recalled(self) -> None:
        """The dispatcher took the request back before its first byte; it waits again."""
        attempt, self.attempt = self.attempt, None
        if self._race is not None:
            self._race.end()
        if attempt is not None:
            self._tried.pop()
            self._backend = None
            attempt.recalled()

    def client_left(self) -> None:
        """The client is gone; does nothing once the answer is complete."""
        if self._over:
            return
        if self.attempt is not None:
            self.attempt.cancel()
        elif self.request is not None:
            engine = self.engine
            engine.dispatcher.cancel(self.request.request_id, engine.now())
            engine.poke()
        self._answered(LEFT_EARLY)
        if self._going_on is not None:
            self._going_on.ended("cancelled")
        self._close()

    def cut(self) -> None:
        """The gateway stops: end it and let the client see that."""
        self.client_left()
        self._client.cut()

    def look(self, now: float) -> None:
        """See whether the backend is late."""
        attempt = self.attempt
        if attempt is not None:
            if len(attempt.gaps) >= MOST_GAPS and self.request is not None:
                self.engine.events.gapped(self.request.model, self._tried[-1], attempt.gaps)
                del attempt.gaps[:]
            attempt.look(now)
        if self._race is not None and self._race.second is not None:
            self._race.second.attempt.look(now)
        if self._halves is not None:
            self._halves.look(now)

    def pause(self) -> None:
        """The client reads slowly."""
        self._paused = True
        if self.attempt is not None:
            self.attempt.pause()

    def resume(self) -> None:
        """The client caught up."""
        self._paused = False
        if self.attempt is not None:
            self.attempt.resume()

    # Decisions

    def _follow(self, decision: Decision, now: float) -> None:
        engine = self.engine
        if isinstance(decision, Assign):
            if decision.recalled:
                engine.recall(decision)
            self._try(decision.backend, now, decision.prefill)
        elif isinstance(decision, Reject) and self._status:
            self._break_off(from_reject(decision))
        elif isinstance(decision, Reject):
            unknown = decision.reason == "unknown_model"
            if unknown and self.request is not None and engine.awaits(self.request.model, now):
                decision, unknown = model_gone(self.request.model), False
            self._reason = decision.reason
            engine.events.rejected(self._label(unknown=unknown), decision.reason)
            self._answer(from_reject(decision))
        else:
            engine.queued()

    def _try(self, backend: BackendSpec, now: float, prefill: BackendSpec | None = None) -> None:
        engine = self.engine
        assert self.request is not None
        self._backend = backend
        if not self._tried:
            engine.events.waited(self.request.model, now - self.request.arrival_s)
        self._tried.append(backend.name)
        if engine.sent is not None:
            engine.sent(self.request, (prefill or backend).name)
        self._ticket = Ticket(engine.dispatcher, self.request.request_id, engine.poke)
        if prefill is not None:
            self._prefill = prefill
            self._halves = Halves(self, prefill, backend)
            self._halves.begin(now)
            return
        attempt = self.attempt = self.attempt_at(backend, self, self._ticket, now)
        if not self._streams:
            engine.presumed.at(now + engine.backlog_s(backend.name, now), self._ticket)
        self.send(attempt, backend)
        if engine.dispatcher.hedging is not None and self._streams and not self._status:
            self._race = self._race or Race(self)
            self._race.plan(self.request.request_id, now)

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
        body = self.body if body is None else body
        attempt.begin(
            pool, self.engine.upstream_request(self._call, body, self._asked, backend, pool.address)
        )

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

    # What the attempt reports (``seams.Owner``)

    def answer_begins(self, status: int, headers: Headers) -> None:
        """Pass status and headers on, ours added."""
        if self._race is not None and self.request is not None and self._backend is not None:
            self._race.first_answers(self.request.request_id, self._backend.name)
        told = self.engine.load_told
        if told is not None and self._backend is not None:
            for name, value in headers:
                if name == LOAD:
                    told(self._backend.name, value, self.engine.now())
        if self._status:  # the stream goes on
            if self._paused:
                self.pause()
            return
        self._answered(status)
        self._call.body = b""
        self._client.start(status, end_to_end(headers, NOT_FOR_CLIENTS) + self._own_headers())

    def answer_ends(self, usage: Usage | None) -> None:
        """All of it has been passed on; learn how long the prompt really was."""
        self._client.end()
        if self._going_on is not None:
            self._going_on.ended("completed")
        if usage is not None and self.request is not None:
            self.engine.learn(self.request.model, self._size_bytes, usage)
        attempt = self.attempt
        if attempt is not None and self.request is not None:
            self._finish_reason = attempt.finish_reason
            self.engine.events.ended(
                self.request.model, self._tried[-1], attempt.gaps, attempt.finish_reason
            )
        self._close()

    def answer_breaks(self, problem: Problem, *, at_boundary: bool, output_tokens: int) -> None:
        """Say why where a stream can carry it, then cut, so that nobody takes it for whole."""
        assert self._ticket is not None
        going = self._going_on
        if going is not None:
            output_tokens = going.transcript.fresh_tokens
            if going.broke(self._ticket, late=self.engine.now() >= self._give_up_s):
                return
        self._ticket.failed(self.engine.now(), output_tokens=output_tokens)
        self._break_off(problem, at_boundary=at_boundary or going is not None)

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

    # The end

    def _close(self) -> None:
        self._over = True
        self.attempt = None
        if self._race is not None:
            self._race.end()
        if self._halves is not None:
            self._halves.end()
        if self.request is not None:
            self.engine.left(self.request.request_id)
        if self._going_on is not None and self._going_on.outcome is not None:
            self.engine.events.continued(self._going_on.outcome)
        if self.engine.ended is not None:
            self.engine.ended(self._account())
