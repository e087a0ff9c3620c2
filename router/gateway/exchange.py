"""One client request, from its bytes to its end: decide, wait, try, try elsewhere, answer.

Driven by callbacks: the front end hands in a ``Call`` and a ``Client``; backends answer through
``Attempt``; the dispatcher's queue answers through ``decided``. Whatever happens, it ends once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from router.domain.decision import Assign, Decision, Reject
from router.domain.fleet import BackendSpec
from router.domain.request import Request
from router.explain import compact
from router.gateway.account import Account
from router.gateway.attempt import Attempt, Stage
from router.gateway.multipart import fields_of
from router.gateway.problems import Problem, from_reject
from router.gateway.seams import LEFT_EARLY, NO_MODEL, Client, Owner, Setback
from router.gateway.second import Second
from router.gateway.tally import TOKEN_MARKS, Usage
from router.gateway.terms import EXPLAIN, wants
from router.gateway.ticket import Ticket
from router.gateway.wire import (
    HOP_BY_HOP,
    BadRequestError,
    Call,
    Headers,
    end_to_end,
    prompt_bytes,
)

if TYPE_CHECKING:
    from router.gateway.engine import Engine

_TURNED_AWAY = frozenset(("slo_unattainable", "wait_too_long", "shed"))
_LOAD = b"endpoint-load-metrics"
_NOT_FOR_CLIENTS = HOP_BY_HOP | {
    *(b"date", b"server", b"x-request-id", b"x-motley-backend", b"x-motley-policy"),
    _LOAD,
}


class Exchange:
    """Implements ``seams.Owner``."""

    __slots__ = (
        "_asked",
        "_attempt",
        "_backend",
        "_call",
        "_client",
        "_engine",
        "_finish_reason",
        "_give_up_s",
        "_over",
        "_race",
        "_reason",
        "_second",
        "_size_bytes",
        "_status",
        "_streams",
        "_ticket",
        "_tried",
        "request",
    )

    def __init__(self, engine: Engine, call: Call, client: Client) -> None:
        self._engine = engine
        self._call = call
        self._client = client
        self._attempt: Attempt | None = None
        self._backend: BackendSpec | None = None
        self._ticket: Ticket | None = None
        self._second: Second | None = None
        self._race: asyncio.TimerHandle | None = None
        self._tried: list[str] = []
        self._asked = ""
        self._reason = ""
        self._finish_reason = ""
        self._size_bytes = 0
        self._streams = False
        self._status = 0
        self._give_up_s = 0.0
        self._over = False
        self.request: Request | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self._over

    # Driven by the front end and the queue

    def begin(self) -> None:
        """Understand the request and ask the dispatcher for a backend."""
        engine, call = self._engine, self._call
        try:
            fields = fields_of(call.body, call.content_type)
            size_bytes = prompt_bytes(call.body)
            request = self.request = engine.request_of(call, fields, size_bytes)
        except BadRequestError as error:
            self._answer(error.problem)
            return
        self._asked = fields.model or ""
        refusal = engine.enter(call, self._asked, request)
        if refusal is not None:
            engine.events.rejected(self._label(unknown=True), refusal.code or "forbidden")
            self._answer(refusal)
            return
        # Base64 costs tokens by no ratio: such a body teaches nothing.
        whole = len(call.body)
        self._size_bytes = whole if size_bytes == whole else 0
        self._streams = fields.stream is True
        self._give_up_s = request.arrival_s + engine.limits.total_s
        engine.joined(self, request.request_id)
        decision = engine.dispatcher.dispatch(request, request.arrival_s)
        decided_s = engine.now()
        engine.events.worked("dispatch", decided_s - request.arrival_s)
        self._follow(decision, decided_s)

    def decided(self, decision: Decision) -> None:
        """The dispatcher's queue let the request go."""
        if not self._over:
            self._follow(decision, self._engine.now())

    def recalled(self) -> None:
        """The dispatcher took the request back before its first byte; it waits again."""
        attempt, self._attempt = self._attempt, None
        self._end_race()
        if attempt is not None:
            self._tried.pop()
            self._backend = None
            attempt.recalled()

    def client_left(self) -> None:
        """The client is gone; does nothing once the answer is complete."""
        if self._over:
            return
        if self._attempt is not None:
            self._attempt.cancel()
        elif self.request is not None:
            engine = self._engine
            engine.dispatcher.cancel(self.request.request_id, engine.now())
        self._answered(LEFT_EARLY)
        self._close()

    def cut(self) -> None:
        """The gateway stops: end it and let the client see that."""
        self.client_left()
        self._client.cut()

    def look(self, now: float) -> None:
        """See whether the backend is late."""
        if self._attempt is not None:
            self._attempt.look(now)
        if self._second is not None:
            self._second.attempt.look(now)

    def pause(self) -> None:
        """The client reads slowly."""
        if self._attempt is not None:
            self._attempt.pause()

    def resume(self) -> None:
        """The client caught up."""
        if self._attempt is not None:
            self._attempt.resume()

    # Decisions

    def _follow(self, decision: Decision, now: float) -> None:
        if isinstance(decision, Assign):
            if decision.recalled:
                self._engine.recall(decision)
            self._try(decision.backend, now)
        elif isinstance(decision, Reject):
            unknown = decision.reason == "unknown_model"
            self._reason = decision.reason
            self._engine.events.rejected(self._label(unknown=unknown), decision.reason)
            self._answer(from_reject(decision))
        else:
            self._engine.queued()

    def _try(self, backend: BackendSpec, now: float) -> None:
        engine = self._engine
        assert self.request is not None
        self._backend = backend
        if not self._tried:
            engine.events.waited(self.request.model, now - self.request.arrival_s)
        self._tried.append(backend.name)
        if engine.sent is not None:
            engine.sent(self.request, backend.name)
        self._ticket = Ticket(engine.dispatcher, self.request.request_id, engine.poke)
        attempt = self._attempt = self._attempt_at(backend, self, self._ticket, now)
        if not self._streams:
            engine.presumed.at(now + engine.backlog_s(backend.name), self._ticket)
        pool = engine.pool(backend)
        attempt.begin(pool, engine.upstream_request(self._call, self._asked, backend, pool.address))

        if engine.dispatcher.hedging is not None and self._streams:
            self._plan_race(now)

    def _attempt_at(
        self, backend: BackendSpec, owner: Owner, ticket: Ticket, now: float
    ) -> Attempt:
        engine = self._engine
        return Attempt(
            owner,
            ticket,
            backend=backend.name,
            limits=engine.limits,
            give_up_s=self._give_up_s,
            clock=engine.now,
            now=now,
            mark=TOKEN_MARKS.get(self._call.path, b""),
        )

    # A second attempt, where the first is late (``second.Racing``)

    def _plan_race(self, now: float) -> None:
        assert self.request is not None
        due_s = self._engine.dispatcher.hedge_due_s(self.request.request_id)
        if due_s is not None:
            delay_s = max(0.0, due_s - now)
            self._race = asyncio.get_running_loop().call_later(delay_s, self._hedge)

    def _hedge(self) -> None:
        engine, first, self._race = self._engine, self._attempt, None
        if self._over or first is None or first.stage is Stage.RELAYING or self.request is None:
            return
        now = engine.now()
        decision = engine.dispatcher.hedge(self.request.request_id, now)
        if decision is None:
            return
        backend = decision.backend
        second = self._second = Second(self, backend)
        second.ticket = Ticket(engine.dispatcher, self.request.request_id, engine.poke)
        second.attempt = self._attempt_at(backend, second, second.ticket, now)
        pool = engine.pool(backend)
        request = engine.upstream_request(self._call, self._asked, backend, pool.address)
        second.attempt.begin(pool, request)

    def second_answers(self, second: Second) -> None:
        """The second attempt was faster: the first is broken off."""
        if self._second is second and self.request is not None:
            first = self._attempt
            name = second.backend.name
            self._engine.dispatcher.win(self.request.request_id, name, self._engine.now())
            self._promote(second)
            if first is not None:
                first.recalled()

    def second_failed(self, second: Second, setback: Setback) -> bool:
        """The second attempt came to nothing; the first goes on."""
        if self._second is not second:
            return False
        self._second = None
        self._withdraw(second.backend.name, second.ticket, setback)
        return True

    def _first_answers(self) -> None:
        second, self._second = self._second, None
        if second is not None and self.request is not None and self._backend is not None:
            name = self._backend.name
            self._engine.dispatcher.win(self.request.request_id, name, self._engine.now())
            second.attempt.recalled()

    def _promote(self, second: Second) -> None:
        self._second = None
        self._attempt, self._ticket = second.attempt, second.ticket
        self._backend = second.backend
        self._tried.append(second.backend.name)

    def _withdraw(self, backend: str, ticket: Ticket, setback: Setback) -> None:
        assert self.request is not None
        engine = self._engine
        engine.dispatcher.withdraw(
            self.request.request_id, backend, engine.now(), backpressure=setback.backpressure
        )
        ticket.void()
        engine.events.retried(backend, setback.reason)

    def _end_race(self) -> None:
        """The books of the second attempt are closed with the first's."""
        if self._race is not None:
            self._race.cancel()
            self._race = None
        second, self._second = self._second, None
        if second is not None:
            second.attempt.recalled()

    def _retry(self, setback: Setback, ticket: Ticket) -> None:
        engine = self._engine
        now = engine.now()
        if len(self._tried) > engine.limits.retries or now >= self._give_up_s:
            ticket.failed(now, backpressure=setback.backpressure)
            self._answer(self._told(setback.problem))
            return
        decision = ticket.moved(now, backpressure=setback.backpressure)
        if isinstance(decision, Reject):
            self._answer(self._told(setback.problem))
        else:
            engine.events.retried(self._tried[-1], setback.reason)
            self._follow(decision, now)

    def _told(self, problem: Problem) -> Problem:
        """The last failure, with all backends that were tried."""
        if len(self._tried) < 2:
            return problem
        message = f"{problem.message} Tried: {', '.join(self._tried)}."
        return Problem(
            problem.status,
            message,
            code=problem.code,
            param=problem.param,
            retry_after_s=problem.retry_after_s,
            type=problem.type,
        )

    # What the attempt reports (``seams.Owner``)

    def answer_begins(self, status: int, headers: Headers) -> None:
        """Pass status and headers on, ours added."""
        if self._second is not None:
            self._first_answers()
        self._answered(status)
        self._call.body = b""
        told = self._engine.load_told
        if told is not None and self._backend is not None:
            for name, value in headers:
                if name == _LOAD:
                    told(self._backend.name, value, self._engine.now())
        self._client.start(status, end_to_end(headers, _NOT_FOR_CLIENTS) + self._own_headers())

    def answer_data(self, data: bytes) -> None:
        """Pass on what came."""
        self._client.write(data)

    def answer_ends(self, usage: Usage | None) -> None:
        """All of it has been passed on; learn how long the prompt really was."""
        self._client.end()
        if usage is not None and self.request is not None:
            self._engine.learn(self.request.model, self._size_bytes, usage)
        attempt = self._attempt
        if attempt is not None and self.request is not None:
            self._finish_reason = attempt.finish_reason
            self._engine.events.ended(
                self.request.model, self._tried[-1], attempt.gaps, attempt.finish_reason
            )
        self._close()

    def answer_breaks(self, problem: Problem, *, at_boundary: bool) -> None:
        """Say why where a stream can carry it, then cut, so that nobody takes it for whole."""
        if at_boundary:
            self._client.write(problem.event())
        self._missed()
        self._client.cut()
        self._close()

    def attempt_failed(self, setback: Setback) -> None:
        """Elsewhere, if elsewhere may do better."""
        self._attempt = None
        ticket = self._ticket
        assert ticket is not None
        second = self._second
        if second is not None and setback.retryable:
            self._withdraw(self._tried[-1], ticket, setback)
            self._promote(second)
            return
        if setback.retryable:
            self._retry(setback, ticket)
        else:
            ticket.refused(self._engine.now())
            self._answer(self._not_the_clients(setback.problem))

    def _not_the_clients(self, problem: Problem) -> Problem:
        """A backend that refuses the gateway's credentials says nothing about the client's, and
        its words may hold the key."""
        if problem.status not in (401, 403) or not self._tried:
            return problem
        if not self._engine.keeps_credentials(self._tried[-1]):
            return problem
        message = f"Backend {self._tried[-1]} does not accept the gateway's credentials."
        return Problem(502, message, code="backend_credentials")

    # The end

    def _answer(self, problem: Problem) -> None:
        self._answered(problem.status, unknown=problem.status == 404 and not self._tried)
        self._client.start(problem.status, problem.headers() + self._own_headers())
        self._client.write(problem.body())
        self._client.end()
        self._close()

    def _answered(self, status: int, *, unknown: bool = False) -> None:
        """Count the answer, once: what the client saw first is what it got."""
        if self._status:
            return
        self._status = status
        slo_class = self.request.slo_class if self.request is not None else ""
        self._engine.events.answered(self._label(unknown=unknown), slo_class, status)
        if status >= 500 or self._reason in _TURNED_AWAY:
            self._missed()

    def _missed(self) -> None:
        """The request got no answer, and not by a fault of its own."""
        if self._engine.missed is not None and self.request is not None:
            self._engine.missed(self.request.slo_class, self._engine.now())

    def _label(self, *, unknown: bool) -> str:
        return NO_MODEL if unknown or self.request is None else self.request.model

    def _own_headers(self) -> Headers:
        headers = [
            (b"x-request-id", self._call.request_id.encode()),
            (b"x-motley-policy", self._engine.policy_name),
        ]
        if self._backend is not None:
            headers.append((b"x-motley-backend", self._backend.name.encode()))
            if self.request is not None and self.request.fallbacks:
                headers.append((b"x-motley-model", self._backend.model.encode()))
        if (
            self.request is not None
            and self.request.explain
            and wants(dict(self._call.headers), EXPLAIN)
        ):
            account = self._engine.dispatcher.explainer.get(self.request.request_id)
            if account is not None:
                headers.append((b"x-motley-explain", compact(account).encode("ascii", "replace")))
        caller = self._call.caller
        if caller is not None and caller.meter is not None:
            headers += self._engine.gate.headers(caller)
        return headers

    def _close(self) -> None:
        self._over = True
        self._attempt = None
        if self._race is not None or self._second is not None:
            self._end_race()
        if self.request is not None:
            self._engine.left(self.request.request_id)
        if self._engine.ended is not None:
            self._engine.ended(self._account())

    def _account(self) -> Account:
        return Account(
            self._call,
            self.request,
            self._status,
            self._engine.now(),
            self._tried,
            self._reason,
            self._finish_reason,
        )
