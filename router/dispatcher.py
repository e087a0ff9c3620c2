"""The sans-IO heart: one synchronous state machine for the gateway and the simulator.

It does no IO, reads no clock and awaits nothing, so it needs no lock, and a policy cannot tell
which world it is in. The life of a request::

    dispatch ──> Assign ──> first_token ──> complete | cancel | fail
        │           └─────> redispatch (the attempt failed; nothing is sent twice) ──> Assign ...
        ├──────> Wait ───> poll ──> Assign | Reject          (or cancel while it waits)
        └──────> Reject

Invariants: I1 arrived = rejected + completed + failed + cancelled + in flight + queued;
I2 every in-flight count returns to 0; I8 no backend gets a request twice. ``rejected`` are those
turned away without an attempt; whoever had one and got no answer has ``failed``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

from router.domain.decision import Assign, Decision, Reject, Wait
from router.domain.errors import BadInputError, UnknownNameError
from router.domain.fleet import BackendSpec
from router.domain.outcome import Outcome, OutcomeStatus
from router.domain.protocols import (
    DispatchListener,
    Hold,
    LengthPredictor,
    LossListener,
    Observer,
    Policy,
    PrefixHints,
)
from router.domain.request import Request
from router.domain.state import EngineSignals, RemoteLoad
from router.explain import Explainer
from router.fleet_state.backend import BackendState, Capability, Flight
from router.fleet_state.eligible import eligible
from router.fleet_state.fleet import FleetState
from router.hedge import HedgeBudget
from router.perf.estimate import tpot_s, ttft_s
from router.queue.waiting_room import Waiting, WaitingRoom

FRESH: frozenset[str] = frozenset()
SATURATED = Wait("saturated")


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

    Attributes:
        explainer: keeps the accounts of requests that asked for one.
        hedging: the budget of second attempts; ``None`` where there are none.
        fell_back: how often one model (asked) was answered by another (served).
        recalls: whether a request may be taken back from its backend before its first byte.
    """

    recalls = False

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
        self._listener = policy if isinstance(policy, DispatchListener) else None
        self._waiting = WaitingRoom(queue_size, queue_timeout_s)
        self._claimed: set[int] = set()  # backends, by index, that somebody waits for
        self._look_s = math.inf
        self._strict_context = strict_context
        self._flights: dict[str, Flight] = {}
        self.explainer = Explainer()
        self.hedging: HedgeBudget | None = None
        self._seconds: dict[str, Flight] = {}  # of requests that have two attempts under way
        self.fell_back: Counter[tuple[str, str]] = Counter()
        self.arrived = self.completed = self.failed = self.cancelled = self.rejected = 0

    @property
    def in_flight(self) -> int:
        """Requests sent to a backend and not over."""
        return len(self._flights)

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self._policy

    @property
    def flights(self) -> list[Flight]:
        """What is in flight, oldest dispatch first; for those who look on."""
        return list(self._flights.values())

    @property
    def queued(self) -> int:
        """Requests waiting in the router."""
        return len(self._waiting)

    @property
    def waiting(self) -> list[Request]:
        """Those requests, in the order of the queue."""
        return [entry.request for entry in self._waiting]

    # -- the life of a request ---------------------------------------------------------------

    def dispatch(self, request: Request, now: float) -> Decision:
        """Decide where a new request goes.

        Raises:
            BadInputError: a request of this id is not over yet.
        """
        request_id = request.request_id
        if request_id in self._flights or request_id in self._waiting:
            raise BadInputError(
                f"request id {request_id!r} is taken by a request that is not over; "
                f"give each request an id of its own"
            )
        self.arrived += 1
        decision = self._place(request, FRESH, now)
        if type(decision) is Reject:
            self.rejected += 1
        if request.explain and type(decision) is not Assign:
            self._account(request, decision, FRESH, now)
        return decision

    def redispatch(
        self, request_id: str, now: float, *, backpressure: bool = False, output_tokens: int = 0
    ) -> Decision:
        """The attempt failed before its answer was complete: try another backend.

        Ends the attempt (there is no need to call ``fail`` first) and never chooses a backend
        that this request has tried (I8). A ``Reject`` ends the request as failed.

        Args:
            request_id: an in-flight request.
            now: the time.
            backpressure: the backend was busy (429, 503), not broken; its breaker is spared.
            output_tokens: of the answer that the client has already; where there are some, the
                other backend is to go on after them, so it must be one that can.

        Raises:
            UnknownNameError: the request is not in flight.
        """
        flight = self._land(request_id, now)
        self._judge(flight, now, backpressure=backpressure)
        self._tell(flight, "failed", now, output_tokens, None, None)
        tried = flight.tried | {flight.backend.spec.name}
        if output_tokens:
            flight.request.carry(output_tokens, flight.first_token_s)
        if flight.request.carried_tokens:
            tried |= {b.spec.name for b in self.state.backends if not b.spec.continues}
        decision = self._place(flight.request, tried, now)
        if type(decision) is Reject:
            self.failed += 1
        return decision

    def first_token(self, request_id: str, now: float) -> None:
        """The first token of an in-flight request arrived; later calls change nothing."""
        flight = self._flight(request_id)
        if flight.first_token_s is None:
            flight.backend.first_token(flight, now)
            # A probe need not run to its end, which may be minutes away, to show that it is served.
            if flight.probe:
                flight.backend.breaker.began(flight.probe)
                self.state.changed()

    def presume_first_token(self, request_id: str, now: float) -> None:
        """By now its prefill should be over, but nobody can see that: the answer is not streamed.

        Its prompt stops counting as backlog. Nobody is vouched for and nothing is learned: the
        outcome has no first token unless one was seen.
        """
        flight = self._flight(request_id)
        flight.backend.prefilled(flight, now)

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
        self._vouch(flight)
        return self._tell(flight, "completed", now, output_tokens, prompt_tokens, cached_tokens)

    def fail(
        self, request_id: str, now: float, *, backpressure: bool = False, output_tokens: int = 0
    ) -> Outcome:
        """The request is over with an error that the client saw."""
        flight = self._land(request_id, now)
        self.failed += 1
        self._judge(flight, now, backpressure=backpressure)
        return self._tell(flight, "failed", now, output_tokens, None, None)

    def refuse(self, request_id: str, now: float) -> Outcome:
        """The backend found fault with the request itself (4xx): nobody's failure but its own."""
        flight = self._land(request_id, now)
        self.failed += 1
        self._spare(flight)
        return self._tell(flight, "failed", now, 0, None, None)

    def cancel(self, request_id: str, now: float, *, output_tokens: int = 0) -> None:
        """The client left, whether the request waits here or is in flight."""
        if self._waiting.leave(request_id) is not None:
            self.cancelled += 1
            return
        flight = self._land(request_id, now)
        self.cancelled += 1
        self._spare(flight)
        self._tell(flight, "cancelled", now, output_tokens, None, None)

    def poll(self, now: float) -> list[tuple[Request, Assign | Reject]]:
        """Decide what can be decided of the queued requests, first in first out.

        Call it when something ended, began to decode or was scraped while ``queued`` is not 0,
        and at ``next_poll_s``. Nobody overtakes: a backend that somebody waits for is not for
        those who came later, queued or not. So a prompt that needs much KV gets its turn, and one
        that may go to some backends only holds nobody up who may go elsewhere.
        """
        decided: list[tuple[Request, Assign | Reject]] = []
        self._claimed.clear()
        self._look_s = math.inf
        hopeless: set[str] = set()
        for entry in self._waiting:
            decision = self._reconsider(entry, hopeless, now)
            if decision is not None:
                self._waiting.leave(entry.request.request_id)
                decided.append((entry.request, decision))
        return decided

    def next_poll_s(self) -> float | None:
        """When ``poll`` must be called at the latest; ``None`` while nobody waits."""
        if not self.queued:
            return None
        return min(self._waiting.next_deadline_s(), self.state.next_half_open_s(), self._look_s)

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
        if not healthy:
            self._forget(backend)

    def drain(self, backend: str, now: float) -> None:  # noqa: ARG002
        """Send nothing new to this backend."""
        self.state.drain(backend)

    def share(
        self,
        loads: Mapping[str, RemoteLoad],
        now: float,
        *,
        prefixes: Sequence[tuple[str, tuple[int, ...], int]] = (),
    ) -> None:
        """What other replicas of this router have under way, and what they sent where.

        Args:
            loads: by backend, everything of all others; who is not named has nothing.
            now: the time.
            prefixes: backend, prefix hashes and tokens a block of prompts they sent lately.
        """
        self.state.share(loads, now)
        policy = self._policy
        if prefixes and isinstance(policy, PrefixHints):
            for name, hashes, block_tokens in prefixes:
                if name in self.state:
                    policy.hint(self.state.get(name), hashes, block_tokens)

    def resume(self, backend: str, now: float) -> None:  # noqa: ARG002
        """Send to this backend again: it was drained, and stays after all."""
        self.state.resume(backend)

    def use_policy(
        self,
        policy: Policy,
        recipe: Mapping[str, Any],  # noqa: ARG002
        now: float,  # noqa: ARG002
    ) -> None:
        """Decide with another policy from now on; what is queued is decided by it.

        Args:
            policy: a fresh one.
            recipe: what ``policies.registry.from_recipe`` would make it of, for the log.
            now: the time.
        """
        others = tuple(one for one in self._observers if one is not self._policy)
        learning = (policy,) if isinstance(policy, Observer) else ()
        self._policy, self._observers = policy, (*others, *learning)
        self._listener = policy if isinstance(policy, DispatchListener) else None

    def add_backend(
        self,
        spec: BackendSpec,
        now: float,  # noqa: ARG002
        *,
        capability: Capability | None = None,
    ) -> None:
        """A backend joins; ``capability`` is what it can do, if that is not to be looked up."""
        self.state.add(spec, capability)

    def remove_backend(self, backend: str, now: float) -> None:  # noqa: ARG002
        """A backend leaves; what is in flight there runs on until it is reported over."""
        self.state.remove(backend)
        self._forget(backend)

    def _forget(self, backend: str) -> None:
        if isinstance(self._policy, LossListener):
            self._policy.lost(backend)

    # -- inside ------------------------------------------------------------------------------

    def _place(self, request: Request, tried: frozenset[str], now: float) -> Decision:
        options = self._options(request, tried, now)
        if isinstance(options, Reject):
            return options
        if not request.forecast.p90_tokens:
            request.forecast = self._predictor.forecast(request)
        full = self._waiting.full
        decision = self._ask(request, options, tried, now, claims=not full)
        if type(decision) is Wait:
            if request.fallbacks:
                instead = self._fall_back(request, tried, now)
                if instead is not None:
                    return instead
            if full:
                return self._waiting.turn_away(request, decision)
            if self.queued:  # time has passed: the first in the queue may go by now
                self._look_s = now
            self._waiting.enter(request, tried, now)
        return decision

    def _fall_back(self, request: Request, tried: frozenset[str], now: float) -> Assign | None:
        """Rather than let it wait, another model may answer at once, if the client allows it."""
        asked = request.model
        for model in request.fallbacks:
            request.model = model
            decision = self._place_at_once(request, tried, now)
            if decision is not None:
                self.fell_back[asked, model] += 1
                return decision
        request.model = asked
        return None

    def _place_at_once(self, request: Request, tried: frozenset[str], now: float) -> Assign | None:
        options = self._options(request, tried, now)
        if not isinstance(options, list):
            return None
        decision = self._ask(request, options, tried, now, claims=False)
        return decision if isinstance(decision, Assign) else None

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
        return eligible(self.state, request, tried, now, strict_context=self._strict_context)

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
        if not self.queued:
            self._claimed.clear()
        elif self._claimed:
            options = [b for b in options if b.index not in self._claimed]
        chosen = self._policy.choose(request, options, now) if options else None
        if chosen is None or isinstance(chosen, Hold):
            if claims:
                awaited = options if chosen is None else (chosen.backend,)
                self._claimed.update([b.index for b in awaited])
            return SATURATED
        # Policies return one of the candidates, and every candidate is a BackendState.
        return self._send(request, cast(BackendState, chosen), tried, now)

    def _send(
        self, request: Request, backend: BackendState, tried: frozenset[str], now: float
    ) -> Assign:
        if request.explain:
            self._account(request, Assign(backend.spec), tried, now)
        listener = self._listener
        cached = listener.dispatched(request, backend, now) if listener is not None else 0
        flight = Flight(request, backend, now, tried, cached)
        if self._observers or self.hedging is not None:
            expected_s = ttft_s(backend, request.prompt_tokens, now, cached_tokens=cached)
            flight.predicted_ttft_s = now - request.arrival_s + expected_s
            flight.predicted_tpot_s = tpot_s(backend, request.prompt_tokens, flight.output_tokens)
            if self.hedging is not None:
                self.hedging.base_s += backend.cost.prompt_s(request.prompt_tokens, cached)
        self._flights[request.request_id] = flight
        backend.sent(flight, now)
        flight.probe = backend.breaker.sent()
        if flight.probe:
            self.state.changed()
        return Assign(backend.spec)

    def _account(
        self, request: Request, decision: Decision, tried: frozenset[str], now: float
    ) -> None:
        """Write down why, for a request that asked."""
        offered, barred = self._offered(request, tried, now)
        self.explainer.note(
            request, decision, self._policy, self.state.backends, offered, barred, self.queued, now
        )

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

    def _reconsider(self, entry: Waiting, hopeless: set[str], now: float) -> Assign | Reject | None:
        decision: Decision = SATURATED
        if entry.request.model not in hopeless:
            decision = self._again(entry, hopeless, now)
        if isinstance(decision, Wait):
            if now < entry.deadline_s:
                return None
            decision = self._waiting.give_up(entry.request)
        if isinstance(decision, Reject):
            if entry.tried:
                self.failed += 1
            else:
                self.rejected += 1
            if entry.request.explain:
                self._account(entry.request, decision, entry.tried, now)
        return decision

    def _again(self, entry: Waiting, hopeless: set[str], now: float) -> Decision:
        """Ask for a queued request; note models of which nothing is left for those behind it."""
        request = entry.request
        options = self._options(request, entry.tried, now)
        if isinstance(options, Reject):
            return options
        patient = now < entry.deadline_s
        decision = self._ask(request, options, entry.tried, now, claims=patient)
        if isinstance(decision, Wait) and patient:
            everyone = self.state.candidates(request.model, now)
            if all(b.index in self._claimed for b in everyone):
                hopeless.add(request.model)
        return decision

    def _flight(self, request_id: str) -> Flight:
        try:
            return self._flights[request_id]
        except KeyError:
            raise UnknownNameError("request in flight", request_id, ()) from None

    def _land(self, request_id: str, now: float) -> Flight:
        flight = self._flight(request_id)
        del self._flights[request_id]
        flight.backend.ended(flight, now)
        if self._seconds:
            second = self._seconds.pop(request_id, None)
            if second is not None:
                second.backend.ended(second, now)
                self._spare(second)
        return flight

    def _vouch(self, flight: Flight) -> None:
        """The backend serves."""
        breaker = flight.backend.breaker
        was = breaker.state
        breaker.succeeded(flight.probe)
        if breaker.state != was:
            self.state.changed()

    def _judge(self, flight: Flight, now: float, *, backpressure: bool) -> None:
        """A failed attempt speaks of the backend's health, unless it was merely busy."""
        if backpressure:
            self._spare(flight)
            return
        flight.backend.breaker.failed(now, flight.probe)
        if not flight.backend.usable:
            self.state.changed()

    def _spare(self, flight: Flight) -> None:
        """The attempt says nothing about the backend's health; free its probe if it was one."""
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
        if request.explain:
            self.explainer.ended(outcome)
        self._predictor.observe(outcome)
        for observer in self._observers:
            observer.observe(outcome)
        return outcome
