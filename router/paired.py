"""The books where two backends may share a request; see ``router.pairing`` for when."""

from __future__ import annotations

from collections.abc import Container, Sequence

from router.domain.decision import Assign, Reject, Wait
from router.domain.protocols import CacheBelief, LengthPredictor, Observer, Policy
from router.domain.request import Request
from router.fleet_state.backend import BackendState
from router.fleet_state.fleet import FleetState
from router.fleet_state.flight import Flight
from router.pairing import Pair, Pairing
from router.racing import Racing


class Paired(Racing):
    """Sends a request to a pair where that is predicted to be better.

    A request that failed once is served whole from then on, if anybody can: whatever was wrong
    with the pair, that needs one backend only.

    Attributes:
        pairing: finds the pairs; ``None`` where every request is served whole.
    """

    def __init__(
        self,
        state: FleetState,
        policy: Policy,
        predictor: LengthPredictor,
        observers: Sequence[Observer] = (),
    ) -> None:
        super().__init__(state, policy, predictor, observers)
        self.pairing: Pairing | None = None

    def _or_pairs(
        self, options: list[BackendState] | Wait | Reject, request: Request, tried: frozenset[str]
    ) -> list[BackendState] | Wait | Reject:
        """No backend may take all of it; if there are two that might share it, nothing is lost."""
        if isinstance(options, list) or self.pairing is None or request.whole:
            return options
        return [] if self.pairing.possible(self._sides(request, tried)) else options

    def _sides(self, request: Request, tried: frozenset[str]) -> list[BackendState]:
        sides = self.state.sides(request.model)
        longest = request.prompt_tokens + 1
        return [b for b in sides if b.spec.name not in tried and b.max_context_tokens >= longest]

    def _pair(
        self,
        request: Request,
        whole: BackendState | None,
        tried: frozenset[str],
        now: float,
        *,
        barred: Container[int],
    ) -> Pair | None:
        """The pair that is better than ``whole``; never with anybody that others wait for."""
        pairing = self.pairing
        if pairing is None or request.whole or (tried and whole is not None):
            return None
        sides = [b for b in self._sides(request, tried) if b.index not in barred]
        cached = 0
        if whole is not None and isinstance(self._policy, CacheBelief):
            cached = self._policy.believed_cached(request, whole)
        return pairing.better(request, whole, sides, now, cached_tokens=cached)

    def _send_pair(self, request: Request, pair: Pair, tried: frozenset[str], now: float) -> Assign:
        pairing, listener = self.pairing, self._listener
        assert pairing is not None
        prefill, decode = pair.prefill, pair.decode
        cached = listener.dispatched(request, prefill, now) if listener is not None else 0
        first = Flight(request, prefill, now, tried, cached)
        first.residual_tokens = 0.0  # its answer is given elsewhere
        flight = Flight(request, decode, now, tried)
        flight.prefill = first
        flight.predicted_ttft_s = now - request.arrival_s + pair.ttft_s
        flight.predicted_tpot_s = pair.tpot_s
        self._open(flight)
        prefill.sent(first, now)
        decode.adopted(flight, now)
        for one in (first, flight):
            one.probe = one.backend.breaker.sent()
            if one.probe:
                self.state.changed()
        if self.hedging is not None:
            self.hedging.base_s += prefill.cost.prompt_s(request.prompt_tokens, cached)
        pairing.sent(pair, request.prompt_tokens)
        return Assign(decode.spec, prefill=prefill.spec)
