"""One request at one time: who may take it, whom the policy chooses of them, and its sending.

Nobody overtakes: a backend that somebody waits for is not for those who came later, who may wait
behind him if their policy can say when (``Queues``). ``_claimed`` holds those backends while
anybody is queued. For a request that asked, an account of why is written before anything is sent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

from router.domain.decision import Assign, Decision, Reject, Wait
from router.domain.protocols import Hold, LengthPredictor, Observer, Policy, Queues, Taken
from router.domain.request import Request
from router.domain.state import BackendView
from router.fleet_state.backend import BackendState
from router.fleet_state.eligible import eligible
from router.fleet_state.fleet import FleetState
from router.fleet_state.flight import Flight
from router.paired import Paired
from router.pairing import Pair
from router.perf.estimate import tpot_s, ttft_s
from router.queue.waiting_room import WaitingRoom

FRESH: frozenset[str] = frozenset()
SATURATED = Wait("saturated")
Unbooked = tuple[Request, BackendState, frozenset[str], float]
"""An assignment whose books are not open yet: who, where to, who failed it before, when."""

MOST_BEHIND = 64
"""Everybody who waits is asked about again whenever something ends; so many do so behind others."""


class Deciding(Paired):
    """Asks the policy about one request, and sends it where it says.

    Args:
        state, policy, predictor, observers: see ``Flights``.
        waiting: who is queued.
        strict_context: see ``Dispatcher``.
    """

    def __init__(
        self,
        state: FleetState,
        policy: Policy,
        predictor: LengthPredictor,
        observers: Sequence[Observer],
        waiting: WaitingRoom,
        *,
        strict_context: bool,
    ) -> None:
        super().__init__(state, policy, predictor, observers)
        self._waiting = waiting
        self._claimed: dict[int, Taken] = {}  # backends, by index, that somebody waits for
        self._behind = 0  # how many wait behind others
        self._strict_context = strict_context
        self._books_later = False
        self._unbooked: Unbooked | None = None

    @property
    def queued(self) -> int:
        """Requests waiting in the router."""
        return len(self._waiting)

    @property
    def waiting(self) -> list[Request]:
        """Those requests, in the order of the queue."""
        return [entry.request for entry in self._waiting]

    def holds(self, request: Request) -> bool:
        """Whether this very request waits here or is in flight; for the rare case, not quick."""
        return any(one is request for one in (*self.waiting, *(f.request for f in self.flights)))

    def book(self) -> None:
        """Open the books of what was assigned, where ``dispatch`` left that for later."""
        unbooked, self._unbooked = self._unbooked, None
        if unbooked is None:
            return
        try:
            self._enter(*unbooked)
        except Exception:
            self._lose(unbooked[0])
            raise

    # -- inside ------------------------------------------------------------------------------

    def _missing(self, request_id: str) -> Flight:
        """Perhaps it is over before it was booked."""
        if self._unbooked is None:
            return super()._missing(request_id)
        self.book()
        return self._flight(request_id)

    def _lose(self, request: Request) -> None:
        """An error of ours: whoever is nowhere any more cannot be ended, so he has failed."""
        if not self.holds(request):
            self.failed += 1

    def _hedge_options(
        self, request: Request, tried: frozenset[str], now: float
    ) -> list[BackendState]:
        """Who may take a second attempt: nobody that somebody waits for."""
        options = self._options(request, tried, now)
        if not isinstance(options, list):
            return []
        return [b for b in options if b.index not in self._claimed] if self.queued else options

    def _options(
        self, request: Request, tried: frozenset[str], now: float
    ) -> list[BackendState] | Wait | Reject:
        options = eligible(self.state, request, tried, now, strict_context=self._strict_context)
        return self._or_pairs(options, request, tried) if self.pairing is not None else options

    def _ask(
        self,
        request: Request,
        options: list[BackendState] | Wait,
        tried: frozenset[str],
        now: float,
        *,
        claims: bool,
    ) -> Assign | Wait:
        """Let the policy choose among the options that nobody waits for.

        If the request then stays (``claims``), it claims what it waits for.
        """
        if isinstance(options, Wait):
            return options
        taken: list[Taken] = []
        if self._claimed and not self.queued:
            self._drop_claims()
        if self._claimed:
            claimed = self._claimed
            taken = [claimed[b.index] for b in options if b.index in claimed]
            options = [b for b in options if b.index not in claimed]
        chosen: BackendView | Hold | None = None
        if taken:
            chosen = self._choose(request, options, taken, now) if options else None
        elif options:
            chosen = self._policy.choose(request, options, now)
        if self.pairing is not None:
            pair = self._pair(request, chosen_of(chosen), tried, now, barred=self._claimed)
            if pair is not None:
                return self._send_to_pair(request, pair, tried, now)
        if chosen is None or isinstance(chosen, Hold):
            if claims:
                self._claim(request, options, chosen)
            return SATURATED
        # Policies return one of the candidates, and every candidate is a BackendState.
        return self._send(request, cast(BackendState, chosen), tried, now)

    def _choose(
        self, request: Request, options: list[BackendState], taken: list[Taken], now: float
    ) -> BackendView | Hold | None:
        policy = self._policy
        if taken and self._behind < MOST_BEHIND and isinstance(policy, Queues):
            return policy.choose_or_queue(request, options, taken, now)
        return policy.choose(request, options, now)

    def _drop_claims(self) -> None:
        self._claimed.clear()
        self._behind = 0

    def _claim(self, request: Request, options: list[BackendState], chosen: Hold | None) -> None:
        """The request waits: for any of the options, or for one, behind those who do."""
        if chosen is None:
            self._claimed.update({b.index: Taken(b, math.inf, 0) for b in options})
            return
        index, prefill_s, tokens = chosen.backend.index, chosen.prefill_s, request.prompt_tokens
        before = self._claimed.get(index)
        if before is not None:
            prefill_s, tokens = before.prefill_s + prefill_s, before.prompt_tokens + tokens
            self._behind += 1
        self._claimed[index] = Taken(chosen.backend, prefill_s, tokens)

    def _send(
        self, request: Request, backend: BackendState, tried: frozenset[str], now: float
    ) -> Assign:
        if request.explain:
            self._account(request, Assign(backend.spec), tried, now)
        if self._books_later:
            self._unbooked = request, backend, tried, now
        else:
            self._enter(request, backend, tried, now)
        return Assign(backend.spec)

    def _enter(
        self, request: Request, backend: BackendState, tried: frozenset[str], now: float
    ) -> None:
        listener = self._listener
        cached = listener.dispatched(request, backend, now) if listener is not None else 0
        flight = Flight(request, backend, now, tried, cached)
        if self._observers or self.hedging is not None:
            expected_s = ttft_s(backend, request.prompt_tokens, now, cached_tokens=cached)
            flight.predicted_ttft_s = now - request.arrival_s + expected_s
            flight.predicted_tpot_s = tpot_s(backend, request.prompt_tokens, flight.output_tokens)
            if self.hedging is not None:
                self.hedging.base_s += backend.cost.prompt_s(request.prompt_tokens, cached)
        self._open(flight)
        backend.sent(flight, now)
        flight.probe = backend.breaker.sent()
        if flight.probe:
            self.state.changed()

    def _send_to_pair(
        self, request: Request, pair: Pair, tried: frozenset[str], now: float
    ) -> Assign:
        if request.explain:
            decision = Assign(pair.decode.spec, prefill=pair.prefill.spec)
            self._account(request, decision, tried, now, pair=pair)
        return self._send_pair(request, pair, tried, now)

    def _account(
        self,
        request: Request,
        decision: Decision,
        tried: frozenset[str],
        now: float,
        *,
        pair: Pair | None = None,
    ) -> None:
        """Write down why, for a request that asked."""
        offered, barred = self._offered(request, tried, now)
        account = self.explainer.note(
            request, decision, self._policy, self.state.backends, offered, barred, self.queued, now
        )
        if pair is not None:
            account.pair = pair.account()

    def _offered(
        self, request: Request, tried: frozenset[str], now: float
    ) -> tuple[list[BackendState], dict[str, str]]:
        """What the policy was offered, and why others were not; only for accounts."""
        options = self._options(request, tried, now)
        if not isinstance(options, list):
            return [], {}
        claimed = self._claimed if self.queued else FRESH
        barred = {
            b.spec.name: "somebody before it waits for it" for b in options if b.index in claimed
        }
        return [b for b in options if b.spec.name not in barred], barred


def chosen_of(chosen: object) -> BackendState | None:
    """Whom the policy chose, if it did not decide to wait."""
    return chosen if isinstance(chosen, BackendState) else None
