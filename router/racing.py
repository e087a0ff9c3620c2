"""Second attempts for first tokens that are late: two in flight until one of them answers."""

from __future__ import annotations

from collections.abc import Sequence

from router.domain.decision import Assign
from router.domain.protocols import LengthPredictor, Observer, Policy
from router.domain.request import Request
from router.fleet_state.backend import BackendState
from router.fleet_state.fleet import FleetState
from router.fleet_state.flight import Flight
from router.flights import Flights
from router.hedge import HedgeBudget
from router.perf.estimate import tpot_s, ttft_s


class Racing(Flights):
    """The books where a request may have two attempts; see ``router.hedge`` for when.

    Attributes:
        hedging: the budget of second attempts; ``None`` where there are none.
    """

    def __init__(
        self,
        state: FleetState,
        policy: Policy,
        predictor: LengthPredictor,
        observers: Sequence[Observer] = (),
    ) -> None:
        super().__init__(state, policy, predictor, observers)
        self.hedging: HedgeBudget | None = None

    def hedge_due_s(self, request_id: str) -> float | None:
        """When to ask ``hedge`` about a request just sent; ``None``: never."""
        flight = self._flights.get(request_id)
        if self.hedging is None or flight is None:
            return None
        ahead_s = flight.predicted_ttft_s - (flight.dispatched_s - flight.request.arrival_s)
        return self.hedging.due_s(flight.dispatched_s, ahead_s)

    def hedge(self, request_id: str, now: float) -> Assign | None:
        """A second attempt elsewhere, if the first is late, and that pays; else ``None``.

        Until ``win`` or ``withdraw`` names one of the two, both are under way; whatever ends the
        request ends both. Only for requests without a first token, and never a third attempt.
        """
        flight, budget = self._flights.get(request_id), self.hedging
        if budget is None or flight is None or flight.decoding or request_id in self._seconds:
            return None
        request, first = flight.request, flight.backend
        tried = flight.tried | {first.spec.name}
        options = self._hedge_options(request, tried, now)
        if not options:
            return None
        prompt = request.prompt_tokens
        best = min(options, key=lambda b: (ttft_s(b, prompt, now), b.index))
        cost_s = best.cost.prompt_s(prompt)
        if not budget.pays(now - flight.dispatched_s, ttft_s(best, prompt, now), cost_s):
            return None
        budget.spend(cost_s)
        second = Flight(request, best, now, tried)
        second.predicted_ttft_s = flight.predicted_ttft_s
        second.predicted_tpot_s = tpot_s(best, prompt, second.output_tokens)
        self._seconds[request_id] = second
        best.sent(second, now)
        second.probe = best.breaker.sent()
        if second.probe:
            self.state.changed()
        return Assign(best.spec)

    def win(self, request_id: str, backend: str, now: float) -> None:
        """This one of two attempts answered first; the books of the other are closed."""
        second = self._seconds.pop(request_id, None)
        flight = self._flight(request_id)
        if second is None:
            return
        loser = second
        if second.backend.spec.name == backend:
            self._flights[request_id], loser = second, flight
            if self.hedging is not None:
                self.hedging.won += 1
        loser.backend.ended(loser, now)
        self._spare(loser)

    def withdraw(
        self, request_id: str, backend: str, now: float, *, backpressure: bool = False
    ) -> None:
        """This one of two attempts failed before its first byte; the other goes on alone."""
        second = self._seconds.pop(request_id, None)
        flight = self._flight(request_id)
        if second is None:
            return
        failed, stays = second, flight
        if flight.backend.spec.name == backend:
            failed, stays = flight, second
        self._flights[request_id] = stays
        stays.tried = flight.tried | {failed.backend.spec.name}
        failed.backend.ended(failed, now)
        self._judge(failed, now, backpressure=backpressure)

    def _hedge_options(
        self, request: Request, tried: frozenset[str], now: float
    ) -> list[BackendState]:
        """Who may take a second attempt."""
        raise NotImplementedError
