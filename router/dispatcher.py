"""The sans-IO heart: one synchronous state machine for the gateway and the simulator.

It does no IO, reads no clock and awaits nothing, so it needs no lock, and a policy cannot tell
which world it is in. The life of a request::

    dispatch ──> Assign ──> first_token ──> complete | cancel | fail
        │           └─────> redispatch (the attempt failed before its first byte) ──> Assign ...
        ├──────> Wait ───> poll ──> Assign | Reject          (or cancel while it waits)
        └──────> Reject

Invariants: I1 arrived = rejected + completed + failed + cancelled + in flight + queued;
I2 every in-flight count returns to 0; I8 no backend gets a request twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

from router.domain.decision import Assign, Decision, Reject, Wait
from router.domain.errors import UnknownNameError
from router.domain.fleet import BackendSpec
from router.domain.outcome import Outcome, OutcomeStatus
from router.domain.protocols import LengthPredictor, Observer, Policy
from router.domain.request import Request
from router.domain.state import EngineSignals
from router.fleet_state.backend import BackendState, Flight
from router.fleet_state.fleet import FleetState
from router.perf.estimate import tpot_s, ttft_s
from router.queue.waiting_room import Waiting, WaitingRoom

FRESH: frozenset[str] = frozenset()


class Dispatcher:
    """Decides where each request goes and keeps the exact counts.

    Args:
        state: the fleet.
        policy: chooses among the usable backends.
        predictor: forecasts output lengths; it is also told every outcome.
        observers: told of every finished attempt; they learn, they do not choose.
        queue_size: requests kept waiting at most.
        queue_timeout_s: how long one may wait before it is rejected.
        strict_context: reject a prompt longer than every backend's context. The gateway only
            estimates prompt lengths, so it sends such a prompt to the longest context instead
            and lets the engine judge.
    """

    def __init__(
        self,
        state: FleetState,
        policy: Policy,
        predictor: LengthPredictor,
        *,
        observers: Sequence[Observer] = (),
        queue_size: int = 1000,
        queue_timeout_s: float = 60.0,
        strict_context: bool = True,
    ) -> None:
        self.state = state
        self._policy = policy
        self._predictor = predictor
        # A policy that learns is told too, last, so that it sees what the others learned.
        learning = (policy,) if isinstance(policy, Observer) else ()
        self._observers = (*observers, *learning)
        self._waiting = WaitingRoom(queue_size, queue_timeout_s)
        self._queue_timeout_s = queue_timeout_s
        self._strict_context = strict_context
        self._flights: dict[str, Flight] = {}
        self.arrived = self.completed = self.failed = self.cancelled = self.rejected = 0

    @property
    def in_flight(self) -> int:
        """Requests sent to a backend and not over."""
        return len(self._flights)

    @property
    def queued(self) -> int:
        """Requests waiting in the router."""
        return len(self._waiting)

    # -- the life of a request ---------------------------------------------------------------

    def dispatch(self, request: Request, now: float) -> Decision:
        """Decide where a new request goes."""
        self.arrived += 1
        decision = self._place(request, FRESH, now)
        if type(decision) is Reject:
            self.rejected += 1
        return decision

    def redispatch(self, request_id: str, now: float, *, backpressure: bool = False) -> Decision:
        """The attempt failed before its first byte reached the client: try another backend.

        Ends the attempt (there is no need to call ``fail`` first) and never chooses a backend
        that this request has tried (I8). A ``Reject`` ends the request as failed.

        Args:
            request_id: an in-flight request.
            now: the time.
            backpressure: the backend was busy (429, 503), not broken; its breaker is spared.

        Raises:
            UnknownNameError: the request is not in flight.
        """
        flight = self._land(request_id, now)
        self._judge(flight.backend, now, backpressure=backpressure)
        self._tell(flight, "failed", now, 0, None, None)
        tried = flight.tried | {flight.backend.spec.name}
        decision = self._place(flight.request, tried, now)
        if type(decision) is Reject:
            self.failed += 1
        return decision

    def first_token(self, request_id: str, now: float) -> None:
        """The first token of an in-flight request arrived; later calls change nothing."""
        flight = self._flight(request_id)
        if flight.first_token_s is None:
            flight.backend.first_token(flight, now)

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
        was = flight.backend.breaker.state
        flight.backend.breaker.succeeded()
        if was != "closed":
            self.state.changed()
        return self._tell(flight, "completed", now, output_tokens, prompt_tokens, cached_tokens)

    def fail(
        self, request_id: str, now: float, *, backpressure: bool = False, output_tokens: int = 0
    ) -> Outcome:
        """The request is over with an error that the client saw."""
        flight = self._land(request_id, now)
        self.failed += 1
        self._judge(flight.backend, now, backpressure=backpressure)
        return self._tell(flight, "failed", now, output_tokens, None, None)

    def refuse(self, request_id: str, now: float) -> Outcome:
        """The backend found fault with the request itself (4xx): nobody's failure but its own."""
        flight = self._land(request_id, now)
        self.failed += 1
        self._spare(flight.backend)
        return self._tell(flight, "failed", now, 0, None, None)

    def cancel(self, request_id: str, now: float, *, output_tokens: int = 0) -> None:
        """The client left, whether the request waits here or is in flight."""
        if self._waiting.leave(request_id) is not None:
            self.cancelled += 1
            return
        flight = self._land(request_id, now)
        self.cancelled += 1
        self._spare(flight.backend)
        self._tell(flight, "cancelled", now, output_tokens, None, None)

    def poll(self, now: float) -> list[tuple[Request, Assign | Reject]]:
        """Decide what can be decided of the queued requests, oldest first.

        Call it when something ended, began to decode or was scraped while ``queued`` is not 0,
        and at ``next_poll_s``. A model whose oldest request must wait is not looked at further.
        """
        decided: list[tuple[Request, Assign | Reject]] = []
        blocked: set[str] = set()
        for entry in self._waiting:
            decision = self._reconsider(entry, blocked, now)
            if decision is not None:
                self._waiting.leave(entry.request.request_id)
                decided.append((entry.request, decision))
        return decided

    def next_poll_s(self) -> float | None:
        """When ``poll`` must be called at the latest; ``None`` while nobody waits."""
        if not self.queued:
            return None
        return min(self._waiting.next_deadline_s(), self.state.next_half_open_s())

    # -- what else is learned ----------------------------------------------------------------

    def scrape(self, backend: str, signals: EngineSignals, now: float) -> None:  # noqa: ARG002
        """An engine's own metrics arrived."""
        self.state.scrape(backend, signals)

    def correct(self, backend: str, *, prefill: float, decode: float, now: float) -> None:  # noqa: ARG002
        """New learned multipliers on a backend's prior cost (1.0 = as the catalogue says)."""
        self.state.correct(backend, prefill, decode)

    def set_prices(self, prices: Mapping[str, float], now: float) -> None:  # noqa: ARG002
        """New shadow prices by group, in seconds of delay per engine-second."""
        self.state.set_prices(prices)

    def set_health(self, backend: str, *, healthy: bool, now: float) -> None:  # noqa: ARG002
        """An active health check spoke."""
        self.state.set_health(backend, healthy)

    def drain(self, backend: str, now: float) -> None:  # noqa: ARG002
        """Send nothing new to this backend."""
        self.state.drain(backend)

    def add_backend(self, spec: BackendSpec, now: float) -> None:  # noqa: ARG002
        """A backend joins."""
        self.state.add(spec)

    def remove_backend(self, backend: str, now: float) -> None:  # noqa: ARG002
        """A backend leaves; what is in flight there runs on until it is reported over."""
        self.state.remove(backend)

    # -- inside ------------------------------------------------------------------------------

    def _place(self, request: Request, tried: frozenset[str], now: float) -> Decision:
        if not request.forecast.p90_tokens:
            request.forecast = self._predictor.forecast(request)
        decision = self._choose(request, tried, now)
        if type(decision) is Wait:
            if self._waiting.full:
                return self._queue_full()
            self._waiting.enter(request, tried, now)
        return decision

    def _choose(self, request: Request, tried: frozenset[str], now: float) -> Decision:
        usable = self.state.candidates(request.model, now)
        if tried:
            usable = [b for b in usable if b.spec.name not in tried]
        if not usable:
            return self._nobody(request, tried)
        fitting = self._fitting(request, usable)
        if not fitting:
            return self._too_long(request)
        chosen = self._policy.choose(request, fitting, now)
        if chosen is None:
            return Wait("saturated")
        # Policies return one of the candidates, and every candidate is a BackendState.
        return self._send(request, cast(BackendState, chosen), tried, now)

    def _send(
        self, request: Request, backend: BackendState, tried: frozenset[str], now: float
    ) -> Assign:
        flight = Flight(request, backend, now, tried)
        if self._observers:
            flight.predicted_ttft_s = (
                now - request.arrival_s + ttft_s(backend, request.prompt_tokens, now)
            )
            flight.predicted_tpot_s = tpot_s(backend, request.prompt_tokens, flight.output_tokens)
        self._flights[request.request_id] = flight
        backend.sent(flight, now)
        if backend.breaker.state != "closed":
            backend.breaker.sent()
            self.state.changed()
        return Assign(backend.spec)

    def _fitting(self, request: Request, usable: list[BackendState]) -> list[BackendState]:
        """Candidates whose context holds prompt and answer; failing that, the prompt alone."""
        wanted = request.prompt_tokens + (request.max_tokens or 1)
        fitting = [b for b in usable if b.max_context_tokens >= wanted]
        if len(fitting) == len(usable):
            return usable
        if not fitting:
            fitting = [b for b in usable if b.max_context_tokens > request.prompt_tokens]
        if not fitting and not self._strict_context:
            longest = max(b.max_context_tokens for b in usable)
            fitting = [b for b in usable if b.max_context_tokens == longest]
        return fitting

    def _nobody(self, request: Request, tried: frozenset[str]) -> Decision:
        if not self.state.serves(request.model):
            served = ", ".join(sorted(self.state.models)) or "none"
            return Reject(
                "unknown_model",
                f"The model {request.model!r} does not exist here. Models served: {served}.",
            )
        if tried:
            return Reject(
                "all_backends_tried",
                f"Every usable backend of {request.model!r} failed this request: "
                f"{', '.join(sorted(tried))}. Try again shortly.",
                retry_after_s=1.0,
            )
        return Wait("no_healthy_backend")

    def _too_long(self, request: Request) -> Reject:
        longest = max(
            b.max_context_tokens for b in self.state.backends if b.spec.model == request.model
        )
        return Reject(
            "context_too_long",
            f"The prompt has {request.prompt_tokens} tokens, and the longest context of any "
            f"usable backend of {request.model!r} is {longest} tokens. Shorten the prompt.",
        )

    def _queue_full(self) -> Reject:
        return Reject(
            "queue_full",
            f"All backends are busy and {self.queued} requests wait already. Try again shortly.",
            retry_after_s=math.ceil(self._queue_timeout_s / 4),
        )

    def _reconsider(self, entry: Waiting, blocked: set[str], now: float) -> Assign | Reject | None:
        request = entry.request
        decision: Decision = Wait("saturated")
        if request.model not in blocked:
            decision = self._choose(request, entry.tried, now)
            if type(decision) is Wait:
                blocked.add(request.model)
        if isinstance(decision, Wait):
            if now < entry.deadline_s:
                return None
            decision = self._timed_out(request)
        if isinstance(decision, Reject):
            self.rejected += 1
        return decision

    def _timed_out(self, request: Request) -> Reject:
        return Reject(
            "queue_timeout",
            f"No backend of {request.model!r} could take the request within "
            f"{self._queue_timeout_s:g} s. Try again later or add capacity.",
            retry_after_s=math.ceil(self._queue_timeout_s / 4),
        )

    def _flight(self, request_id: str) -> Flight:
        try:
            return self._flights[request_id]
        except KeyError:
            raise UnknownNameError("request in flight", request_id, ()) from None

    def _land(self, request_id: str, now: float) -> Flight:
        flight = self._flight(request_id)
        del self._flights[request_id]
        flight.backend.ended(flight, now)
        return flight

    def _judge(self, backend: BackendState, now: float, *, backpressure: bool) -> None:
        """A failed attempt speaks of the backend's health, unless it was merely busy."""
        if backpressure:
            self._spare(backend)
            return
        backend.breaker.failed(now)
        if not backend.usable:
            self.state.changed()

    def _spare(self, backend: BackendState) -> None:
        """The attempt says nothing about the backend's health; free its probe if it was one."""
        if backend.breaker.state != "closed":
            backend.breaker.abandoned()
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
        )
        self._predictor.observe(outcome)
        for observer in self._observers:
            observer.observe(outcome)
        return outcome
