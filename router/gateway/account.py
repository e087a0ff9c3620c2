"""What became of one client request: for the traffic record, the access log and the traces.

Kept apart from ``Outcome``, which is about one attempt at one backend: a request may have had
several, or none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from router.domain.outcome import Outcome
from router.domain.request import Request
from router.gateway.wire import Call

MOST_OPEN = 100_000
"""Outcomes that wait for the end of their request; more can only be of requests that are over."""


@dataclass(slots=True)
class Account:
    """One request that is over.

    Attributes:
        call: as it came, its body let go.
        request: as dispatched; ``None`` if it could not be understood.
        status: HTTP status that the client got; 499 if it left before.
        ended_s: when, on the gateway's clock.
        tried: backends, in order.
        reason: why it was turned away; empty if it was not.
        finish_reason: why the engine stopped, if it said.
        outcome: of the last attempt; ``None`` if there was none.
    """

    call: Call
    request: Request | None
    status: int
    ended_s: float
    tried: Sequence[str]
    reason: str = ""
    finish_reason: str = ""
    outcome: Outcome | None = None


Reader = Callable[[Account], None]


class Accounts:
    """Joins each request with the outcome of its last attempt and tells the readers; an
    ``Observer``."""

    def __init__(self, readers: Sequence[Reader]) -> None:
        self._readers = readers
        self._outcomes: dict[str, Outcome] = {}

    def observe(self, outcome: Outcome) -> None:
        """Keep it until its request is over."""
        self._outcomes[outcome.request_id] = outcome
        if len(self._outcomes) > MOST_OPEN:
            del self._outcomes[next(iter(self._outcomes))]

    def ended(self, account: Account) -> None:
        """A request is over."""
        if account.request is not None:
            account.outcome = self._outcomes.pop(account.request.request_id, None)
        for reader in self._readers:
            reader(account)
