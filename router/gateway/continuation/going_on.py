"""One exchange's way through a stream that may break: whether, and with what, it goes on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

from router.domain.decision import Reject
from router.gateway.continuation.rules import ContinuationRules, transcript_for
from router.gateway.continuation.transcript import Transcript
from router.gateway.seams import ContinuationOutcome
from router.gateway.ticket import Ticket
from router.gateway.wire import Call, RoutingFields

if TYPE_CHECKING:
    from router.gateway.trying import Trying

log = logging.getLogger("motley.gateway")


class GoingOn:
    """Kept beside an exchange whose stream may be continued.

    Args:
        exchange: whose stream it is.
        transcript: of the stream.
        rules: of the configuration.
        call: as the client made it.

    Attributes:
        body: to send to the next backend.
        outcome: what became of it; ``None`` while the stream has not broken.
    """

    __slots__ = ("_asked", "_exchange", "_request_id", "_rules", "body", "outcome", "transcript")

    def __init__(
        self, exchange: Trying, transcript: Transcript, rules: ContinuationRules, call: Call
    ) -> None:
        self._exchange, self._rules = exchange, rules
        self._request_id = call.request_id
        self.transcript = transcript
        self._asked = self.body = call.body
        self.outcome: ContinuationOutcome | None = None

    def broke(self, ticket: Ticket, *, late: bool) -> bool:
        """The stream broke: let another backend go on with it, if there is a way.

        Args:
            ticket: of the attempt that broke.
            late: whether the request's whole time is up.
        """
        exchange, transcript = self._exchange, self.transcript
        fresh_tokens, now = transcript.fresh_tokens, exchange.engine.now()
        step = "not_possible" if late else self._step()
        if step == "over":
            ticket.completed(now, output_tokens=fresh_tokens, usage=None)
            exchange.answer_data(transcript.closing())
            exchange.answer_ends(None)
            return True
        if step == "not_possible":
            self.outcome = self.outcome or "not_possible"
            return False
        decision = ticket.moved(now, output_tokens=fresh_tokens)
        if isinstance(decision, Reject):
            return False
        log.info(
            "request %s: its backend broke off after %d tokens, another one goes on",
            self._request_id,
            transcript.tokens,
        )
        exchange.go_on(decision, now)
        return True

    def _step(self) -> Literal["elsewhere", "over", "not_possible"]:
        transcript = self.transcript
        if not transcript.continuable or transcript.continuations >= self._rules.max_per_request:
            return "not_possible"
        self.outcome = "failed"  # until it ends better
        body = transcript.resume(self._asked)
        if body is None:
            return "over"
        self.body = body
        return "elsewhere"

    def ended(self, outcome: ContinuationOutcome) -> None:
        """The request is over; does nothing if its stream never broke."""
        if self.outcome == "failed":
            self.outcome = outcome


def going_on(
    exchange: Trying, call: Call, fields: RoutingFields, rules: ContinuationRules
) -> GoingOn | None:
    """For a new exchange; ``None`` where its stream cannot be continued, or is not to be."""
    transcript = transcript_for(call, fields, rules)
    return None if transcript is None else GoingOn(exchange, transcript, rules, call)
