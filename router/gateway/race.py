"""A second attempt beside the first, until one of them answers (``router.hedge`` says when)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from router.domain.fleet import BackendSpec
from router.gateway.attempt import Attempt
from router.gateway.limits import Stage
from router.gateway.problems import Problem
from router.gateway.seams import Setback
from router.gateway.tally import Usage
from router.gateway.ticket import Ticket
from router.gateway.wire import Headers

if TYPE_CHECKING:
    from router.gateway.trying import Trying


class Race:
    """The two attempts of one exchange; made only where second attempts are allowed.

    Attributes:
        second: the second attempt, while both are under way.
    """

    __slots__ = ("_exchange", "_timer", "second")

    def __init__(self, exchange: Trying) -> None:
        self._exchange = exchange
        self._timer: asyncio.TimerHandle | None = None
        self.second: Second | None = None

    def plan(self, request_id: str, now: float) -> None:
        """The first was just sent: ask about a second when it is late."""
        due_s = self._exchange.engine.dispatcher.hedge_due_s(request_id)
        if due_s is not None:
            delay_s = max(0.0, due_s - now)
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(delay_s, self._begin, request_id)

    def _begin(self, request_id: str) -> None:
        exchange, self._timer = self._exchange, None
        first = exchange.attempt
        if exchange.over or first is None or first.stage is Stage.RELAYING:
            return
        engine = exchange.engine
        now = engine.now()
        decision = engine.dispatcher.hedge(request_id, now)
        if decision is None:
            return
        second = self.second = Second(self, exchange, decision.backend)
        second.ticket = Ticket(engine.dispatcher, request_id, engine.poke)
        second.attempt = exchange.attempt_at(decision.backend, second, second.ticket, now)
        exchange.send(second.attempt, decision.backend)

    def first_answers(self, request_id: str, backend: str) -> None:
        """The first attempt has the first byte: the second is broken off."""
        second, self.second = self.second, None
        if second is not None:
            engine = self._exchange.engine
            engine.dispatcher.win(request_id, backend, engine.now())
            second.attempt.recalled()

    def second_answers(self, second: Second) -> None:
        """The second attempt was faster: the first is broken off."""
        exchange = self._exchange
        if self.second is second and exchange.request is not None:
            self.second = None
            engine, first = exchange.engine, exchange.attempt
            name = second.backend.name
            engine.dispatcher.win(exchange.request.request_id, name, engine.now())
            exchange.promote(second)
            if first is not None:
                first.recalled()

    def first_failed(self, backend: str, ticket: Ticket, setback: Setback) -> bool:
        """The first came to nothing; whether the second goes on alone."""
        second, self.second = self.second, None
        if second is None:
            return False
        self._withdraw(backend, ticket, setback)
        self._exchange.promote(second)
        return True

    def second_failed(self, second: Second, setback: Setback) -> bool:
        """The second came to nothing beside the first, which goes on; ``False`` if it is the only
        one by now."""
        if self.second is not second:
            return False
        self.second = None
        self._withdraw(second.backend.name, second.ticket, setback)
        return True

    def _withdraw(self, backend: str, ticket: Ticket, setback: Setback) -> None:
        exchange = self._exchange
        assert exchange.request is not None
        engine = exchange.engine
        engine.dispatcher.withdraw(
            exchange.request.request_id,
            backend,
            engine.now(),
            backpressure=setback.backpressure,
        )
        ticket.void()
        engine.events.retried(backend, setback.reason)

    def end(self) -> None:
        """The books of the second attempt are closed with the first's."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        second, self.second = self.second, None
        if second is not None:
            second.attempt.recalled()


class Second:
    """Implements ``seams.Owner`` for the second attempt, and hands everything on.

    Attributes:
        backend: where it was sent.
        ticket, attempt: set by the race before the attempt begins.
    """

    __slots__ = ("_exchange", "_race", "attempt", "backend", "ticket")

    attempt: Attempt
    ticket: Ticket

    def __init__(self, race: Race, exchange: Trying, backend: BackendSpec) -> None:
        self._race, self._exchange = race, exchange
        self.backend = backend

    def answer_begins(self, status: int, headers: Headers) -> None:
        """It answers."""
        self._race.second_answers(self)
        self._exchange.answer_begins(status, headers)

    def answer_data(self, data: bytes) -> None:
        """Some of the body."""
        self._exchange.answer_data(data)

    def raw_sink(self) -> Callable[[bytes], None] | None:
        """The exchange's."""
        return self._exchange.raw_sink()

    def answer_ends(self, usage: Usage | None) -> None:
        """The answer is complete."""
        self._exchange.answer_ends(usage)

    def answer_breaks(self, problem: Problem, *, at_boundary: bool, output_tokens: int) -> None:
        """It broke after it began."""
        self._exchange.answer_breaks(problem, at_boundary=at_boundary, output_tokens=output_tokens)

    def attempt_failed(self, setback: Setback) -> None:
        """There is no answer here."""
        if not self._race.second_failed(self, setback):
            self._exchange.attempt_failed(setback)
