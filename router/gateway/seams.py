"""Who talks to whom in the relay.

``Client`` is what a front end offers, ``Owner`` the exchange as its attempt sees it, ``Events``
whoever counts. (``connection.Receiver`` is the attempt as its connection sees it.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from router.gateway.problems import Problem
from router.gateway.tally import Usage
from router.gateway.wire import Headers

ContinuationOutcome = Literal["completed", "failed", "cancelled", "not_possible"]

LEFT_EARLY = 499
"""Status in the counts for a client that left before its answer began (nginx's number)."""

NO_MODEL = "none"
"""Label of requests that named no model that exists: clients do not make up label values."""


class Client(Protocol):
    """Whoever asked, as the engine sees it; implemented by the front ends.

    No method may call back into the exchange before it returns, except ``pause``/``resume``.
    """

    def start(self, status: int, headers: Headers) -> None:
        """Status and headers."""

    def write(self, data: bytes) -> None:
        """Some of the body."""

    def raw_sink(self) -> Callable[[bytes], None] | None:
        """What takes whole chunks of a body that has begun, framing and all; ``None`` if nothing
        does."""

    def end(self) -> None:
        """The answer is complete."""

    def cut(self) -> None:
        """The answer broke off: let the client see that, by cutting the connection."""


@dataclass(frozen=True, slots=True)
class Setback:
    """Why an attempt ended before the client saw a byte of it.

    Attributes:
        problem: what to answer if nobody else can.
        retryable: whether another backend may do better.
        backpressure: the backend was busy, not broken.
        reason: the kind of failure in a word: ``connect``, ``timeout``, ``broken``, ``garbage``,
            ``busy``, ``model`` (it does not know the model) or ``error``.
    """

    problem: Problem
    retryable: bool = True
    backpressure: bool = False
    reason: str = "error"


class Owner(Protocol):
    """The exchange, as its attempt sees it."""

    def answer_begins(self, status: int, headers: Headers) -> None:
        """A real answer: commit to it."""

    def answer_data(self, data: bytes) -> None:
        """Some of the body."""

    def raw_sink(self) -> Callable[[bytes], None] | None:
        """The client's, where it may have the body's chunks as they are (see ``Client``)."""

    def answer_ends(self, usage: Usage | None) -> None:
        """The answer is complete; ``usage`` is the engine's own count, if it gave one."""

    def answer_breaks(self, problem: Problem, *, at_boundary: bool, output_tokens: int) -> None:
        """It broke after it began, and after that many tokens; ``at_boundary`` if one more event
        can be appended. The owner closes the ticket."""

    def attempt_failed(self, setback: Setback) -> None:
        """There is no answer; the owner closes the ticket."""


class Events(Protocol):
    """Implemented by ``telemetry.metrics.GatewayMetrics``."""

    def answered(self, model: str, slo_class: str, code: int) -> None:
        """A client got its answer, with this HTTP status."""

    def rejected(self, model: str, reason: str) -> None:
        """A request was turned away."""

    def retried(self, backend: str, reason: str) -> None:
        """An attempt failed before its first byte and goes elsewhere."""

    def continued(self, outcome: ContinuationOutcome) -> None:
        """A stream broke in mid-answer and was, or was not, gone on with elsewhere."""

    def ended(self, model: str, backend: str, gaps: Sequence[float], finish_reason: str) -> None:
        """An answer is complete: the gaps between its reads, and why the engine stopped."""

    def gapped(self, model: str, backend: str, gaps: Sequence[float]) -> None:
        """The gaps so far of an answer that is a long one; ``ended`` brings the others."""

    def waited(self, model: str, seconds: float) -> None:
        """A request left the router's queue, or never had to enter it (0 s)."""

    def worked(self, stage: str, seconds: float) -> None:
        """The gateway itself spent this long on a request."""
