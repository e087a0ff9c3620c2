"""A second attempt beside the first, until one of them answers (``router.hedge`` says when)."""

from __future__ import annotations

from typing import Protocol

from router.domain.fleet import BackendSpec
from router.gateway.attempt import Attempt
from router.gateway.problems import Problem
from router.gateway.seams import Owner, Setback
from router.gateway.tally import Usage
from router.gateway.ticket import Ticket
from router.gateway.wire import Headers


class Racing(Owner, Protocol):
    """The exchange, as its second attempt sees it."""

    def second_answers(self, second: Second) -> None:
        """It has the first byte: from now on it is the only one. Does nothing if it is already."""

    def second_failed(self, second: Second, setback: Setback) -> bool:
        """It failed beside the first; ``False`` if it is the only one by now."""


class Second:
    """Implements ``seams.Owner`` for the second attempt, and hands everything on.

    Attributes:
        backend: where it was sent.
        ticket, attempt: set by the exchange before the attempt begins.
    """

    __slots__ = ("_exchange", "attempt", "backend", "ticket")

    attempt: Attempt
    ticket: Ticket

    def __init__(self, exchange: Racing, backend: BackendSpec) -> None:
        self._exchange = exchange
        self.backend = backend

    def answer_begins(self, status: int, headers: Headers) -> None:
        """It answers."""
        self._exchange.second_answers(self)
        self._exchange.answer_begins(status, headers)

    def answer_data(self, data: bytes) -> None:
        """Some of the body."""
        self._exchange.answer_data(data)

    def answer_ends(self, usage: Usage | None) -> None:
        """The answer is complete."""
        self._exchange.answer_ends(usage)

    def answer_breaks(self, problem: Problem, *, at_boundary: bool) -> None:
        """It broke after it began."""
        self._exchange.answer_breaks(problem, at_boundary=at_boundary)

    def attempt_failed(self, setback: Setback) -> None:
        """There is no answer here."""
        if not self._exchange.second_failed(self, setback):
            self._exchange.attempt_failed(setback)
