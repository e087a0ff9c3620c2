"""The books of what is in flight: opened by an assignment, closed once, whatever the end.

I1 arrived = rejected + completed + failed + cancelled + in flight + queued; I2 every in-flight
count returns to 0. ``rejected`` are those turned away without an attempt; whoever had one and got
no answer has ``failed``.
"""

from __future__ import annotations

from collections.abc import Sequence

from router.domain.errors import UnknownNameError
from router.domain.outcome import Outcome, OutcomeStatus, PrefillHalf
from router.domain.protocols import (
    BeginListener,
    FirstTokenListener,
    LengthPredictor,
    Observer,
    Policy,
)
from router.explain import Explainer
from router.fleet_state.fleet import FleetState
from router.fleet_state.flight import Flight
from router.informed import Informed


class Flights(Informed):
    """Counts every attempt, tells whoever learns how it ended, and judges the backend by it.

    Args:
        state, policy, observers: see ``Informed``.
        predictor: forecasts output lengths; it is also told every outcome.

    Attributes:
        explainer: keeps the accounts of requests that asked for one.
        arrived, completed, failed, cancelled, rejected: requests, since the start.
    """

    def __init__(
        self,
        state: FleetState,
        policy: Policy,
        predictor: LengthPredictor,
        observers: Sequence[Observer] = (),
    ) -> None:
        super().__init__(state, policy, observers)
        self._predictor = predictor
        self._awaiting = predictor if isinstance(predictor, BeginListener) else None
        self._hearing = tuple(one for one in observers if isinstance(one, FirstTokenListener))
        self._flights: dict[str, Flight] = {}
        self._seconds: dict[str, Flight] = {}  # of requests that have two attempts under way
        self.explainer = Explainer()
        self.arrived = self.completed = self.failed = self.cancelled = self.rejected = 0

    @property
    def in_flight(self) -> int:
        """Requests sent to a backend and not over."""
        return len(self._flights)

    @property
    def flights(self) -> list[Flight]:
        """What is in flight, oldest dispatch first; for those who look on."""
        return list(self._flights.values())

    def first_token(self, request_id: str, now: float) -> None:
        """The first token of an in-flight request arrived; later calls change nothing."""
        flight = self._flight(request_id)
        if flight.first_token_s is None:
            if flight.prefill is not None and flight.prefilled_s is None:
                self._end_prefill(flight, flight.prefill, now)
            backend = flight.backend
            backend.first_token(flight, now)
            if flight.prefill is None:
                for one in self._hearing:
                    one.began(request_id, backend.spec.name, flight)
            # A probe need not run to its end, which may be minutes away, to show that it is served.
            if flight.probe:
                backend.breaker.began(flight.probe)
                self.state.changed()
                self.state.recovered(backend, now)

    def prefilled(self, request_id: str, now: float) -> None:
        """The prompt of a request that two backends share is computed; its KV is on the way.

        Later calls change nothing, nor do calls for requests that one backend serves.
        """
        flight = self._flight(request_id)
        if flight.prefill is not None and flight.prefilled_s is None:
            self._end_prefill(flight, flight.prefill, now)

    def presume_first_token(self, request_id: str, now: float) -> None:
        """By now its prefill should be over, but nobody can see that: the answer is not streamed.

        Its prompt stops counting as backlog. Nobody is vouched for and nothing is learned: the
        outcome has no first token unless one was seen.
        """
        flight = self._flight(request_id)
        flight.backend.prefilled(flight, now)

    def complete(
        self,
        request_id: str,
        now: float,
        *,
        output_tokens: int,
        prompt_tokens: int | None = None,
        cached_tokens: int | None = None,
    ) -> Outcome:
        """The answer is complete; token counts are the engine's own where it gave them."""
        flight = self._land(request_id, now)
        self.completed += 1
        self._vouch(flight, now)
        if flight.prefill is not None and flight.prefilled_s is None:
            self._vouch(flight.prefill, now)
        return self._tell(flight, "completed", now, output_tokens, prompt_tokens, cached_tokens)

    def fail(
        self,
        request_id: str,
        now: float,
        *,
        backpressure: bool = False,
        output_tokens: int = 0,
        prefill: bool = False,
    ) -> Outcome:
        """The request is over with an error that the client saw.

        Args:
            request_id: an in-flight request.
            now: the time.
            backpressure: the backend was busy (429, 503), not broken.
            output_tokens: received before it failed.
            prefill: of two backends that share it, the one that computes the prompt failed.
        """
        flight = self._land(request_id, now)
        self.failed += 1
        self._blame(flight, now, backpressure=backpressure, prefill=prefill)
        return self._tell(flight, "failed", now, output_tokens, None, None)

    def refuse(self, request_id: str, now: float) -> Outcome:
        """The backend found fault with the request itself (4xx): nobody's failure but its own."""
        flight = self._land(request_id, now)
        self.failed += 1
        self._spare(flight)
        return self._tell(flight, "failed", now, 0, None, None)

    # -- inside ------------------------------------------------------------------------------

    def _flight(self, request_id: str) -> Flight:
        flight = self._flights.get(request_id)
        return flight if flight is not None else self._missing(request_id)

    def _missing(self, request_id: str) -> Flight:
        """No books are open for it."""
        raise UnknownNameError("request in flight", request_id, ())

    def _open(self, flight: Flight) -> None:
        if self._awaiting is not None:
            self._awaiting.begun(flight.request)
        self._flights[flight.request.request_id] = flight  # last: nothing can go wrong after it

    def _land(self, request_id: str, now: float) -> Flight:
        flight = self._flight(request_id)
        del self._flights[request_id]
        flight.backend.ended(flight, now)
        first = flight.prefill
        if first is not None and flight.prefilled_s is None:
            first.backend.ended(first, now)
        if self._seconds:
            second = self._seconds.pop(request_id, None)
            if second is not None:
                second.backend.ended(second, now)
                self._spare(second)
        return flight

    def _end_prefill(self, flight: Flight, first: Flight, now: float) -> None:
        flight.prefilled_s = now
        first.backend.prefilled(first, now)
        first.backend.ended(first, now)
        self._vouch(first, now)

    def _blame(self, flight: Flight, now: float, *, backpressure: bool, prefill: bool) -> str:
        """An attempt failed: judge the side that did, spare the other; returns its name."""
        first = flight.prefill
        if first is None:
            self._judge(flight, now, backpressure=backpressure)
            return flight.backend.spec.name
        culprit, other = (first, flight) if prefill else (flight, first)
        self._judge(culprit, now, backpressure=backpressure)
        if other is flight or flight.prefilled_s is None:
            self._free_probe(other)
        return culprit.backend.spec.name

    def _vouch(self, flight: Flight, now: float) -> None:
        """The backend serves."""
        backend = flight.backend
        breaker = backend.breaker
        was = breaker.state
        breaker.succeeded(flight.probe)
        if self.state.care is not None:
            self.state.served(backend, failed=False, now=now)
        if breaker.state != was:
            self.state.changed()
            self.state.recovered(backend, now)

    def _judge(self, flight: Flight, now: float, *, backpressure: bool) -> None:
        """A failed attempt speaks of the backend's health, unless it was merely busy."""
        if backpressure:
            self._free_probe(flight)
            return
        flight.backend.breaker.failed(now, flight.probe)
        if self.state.care is not None:
            self.state.served(flight.backend, failed=True, now=now)
        if not flight.backend.usable:
            self.state.changed()

    def _spare(self, flight: Flight) -> None:
        """The attempt says nothing about anybody's health."""
        self._free_probe(flight)
        if flight.prefill is not None and flight.prefilled_s is None:
            self._free_probe(flight.prefill)

    def _free_probe(self, flight: Flight) -> None:
        """It says nothing about its backend's health; free its probe if it was one."""
        if flight.probe:
            flight.backend.breaker.abandoned(flight.probe)
            self.state.changed()

    def _tell(  # noqa: PLR0917
        self,
        flight: Flight,
        status: OutcomeStatus,
        now: float,
        output_tokens: int,
        prompt_tokens: int | None,
        cached_tokens: int | None,
    ) -> Outcome:
        request = flight.request
        outcome = Outcome(
            request.request_id,
            request.model,
            request.slo_class,
            request.tenant,
            flight.backend.spec.name,
            status,
            request.arrival_s,
            flight.dispatched_s,
            flight.first_token_s,
            now,
            request.prompt_tokens if prompt_tokens is None else prompt_tokens,
            output_tokens,
            cached_tokens,
            request.max_tokens,
            flight.prefilling_at_dispatch,
            flight.decoding_at_dispatch,
            flight.predicted_ttft_s,
            flight.predicted_tpot_s,
            flight.output_tokens,
            request.slo,
            flight.fresh_tokens,
            flight.meanwhile(),
        )
        if request.carried_tokens:
            outcome.carried_tokens = request.carried_tokens
            outcome.shown_first_s = request.shown_first_s
            if request.max_tokens is not None:
                outcome.max_tokens = request.max_tokens + request.carried_tokens
        first = flight.prefill
        if first is not None:
            # What the decode side found was sent there: it says nothing of anybody's cache.
            outcome.cached_tokens = None
            outcome.prefill = PrefillHalf(
                first.backend.spec.name,
                flight.prefilled_s,
                first.prefilling_at_dispatch,
                first.decoding_at_dispatch,
                first.fresh_tokens,
            )
        if request.explain:
            self.explainer.ended(outcome)
        self._predictor.observe(outcome)
        for observer in self._observers:
            observer.observe(outcome)
        return outcome
