"""The sans-IO heart: one synchronous state machine for the gateway and the simulator.

It does no IO, reads no clock and awaits nothing, so it needs no lock, and a policy cannot tell
which world it is in. The life of a request::

    dispatch ──> Assign ──> [prefilled ──>] first_token ──> complete | cancel | fail
        │           └─────> redispatch (the attempt failed; nothing is sent twice) ──> Assign ...
        ├──────> Wait ───> poll ──> Assign | Reject          (or cancel while it waits)
        └──────> Reject

``prefilled`` is told where two backends share a request (``router.pairing``).

Invariants: I1 arrived = rejected + completed + failed + cancelled + in flight + queued;
I2 every in-flight count returns to 0; I8 no backend gets a request twice. ``rejected`` are those
turned away without an attempt; whoever had one and got no answer has ``failed``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from router.deciding import FRESH, SATURATED, Deciding
from router.domain.decision import Assign, Decision, Reject, Wait
from router.domain.errors import BadInputError, PollError
from router.domain.protocols import LengthPredictor, Observer, Policy
from router.domain.request import Request
from router.fleet_state.backend import BackendState
from router.fleet_state.fleet import FleetState
from router.queue.waiting_room import Waiting, WaitingRoom

Decided = tuple[Request, Assign | Reject]


class Dispatcher(Deciding):
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
        room = WaitingRoom(queue_size, queue_timeout_s)
        super().__init__(state, policy, predictor, observers, room, strict_context=strict_context)
        self._look_s = math.inf
        self._turn: Request | None = None  # while the queue is decided
        self.fell_back: Counter[tuple[str, str]] = Counter()

    def dispatch(self, request: Request, now: float, *, booked: bool = True) -> Decision:
        """Decide where a new request goes.

        Args:
            request: not seen before.
            now: the time.
            booked: whether to open its books at once. Whoever says no sends the request first
                and calls ``book`` then, before anything else happens.

        Raises:
            BadInputError: a request of this id is not over yet.
        """
        if self._unbooked is not None:
            self.book()  # whoever is decided on knows of everybody before
        request_id = request.request_id
        if request_id in self._flights or request_id in self._waiting:
            raise BadInputError(
                f"request id {request_id!r} is taken by a request that is not over; "
                f"give each request an id of its own"
            )
        self.arrived += 1
        self._books_later = not booked
        try:
            decision = self._place(request, FRESH, now)
        except Exception:
            self._unbooked = None
            self._lose(request)
            raise
        finally:
            self._books_later = False
        if type(decision) is Reject:
            self.rejected += 1
        if request.explain and type(decision) is not Assign:
            self._account(request, decision, FRESH, now)
        return decision

    def redispatch(
        self,
        request_id: str,
        now: float,
        *,
        backpressure: bool = False,
        output_tokens: int = 0,
        prefill: bool = False,
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
            prefill: of two backends that share it, the one that computes the prompt failed.

        Raises:
            UnknownNameError: the request is not in flight.
        """
        flight = self._land(request_id, now)
        failed = self._blame(flight, now, backpressure=backpressure, prefill=prefill)
        self._tell(flight, "failed", now, output_tokens, None, None)
        tried = flight.tried | {failed}
        if flight.prefill is not None and self.pairing is not None:
            self.pairing.broken["prefill" if prefill else "decode", failed] += 1
        if output_tokens:
            flight.request.carry(output_tokens, flight.first_token_s)
        if flight.request.carried_tokens:
            tried |= {b.spec.name for b in self.state.backends if not b.spec.continues}
        decision = self._place(flight.request, tried, now)
        if type(decision) is Reject:
            self.failed += 1
        return decision

    def cancel(self, request_id: str, now: float, *, output_tokens: int = 0) -> None:
        """The client left, whether the request waits here or is in flight."""
        if self._waiting.leave(request_id) is not None:
            self.cancelled += 1
            return
        flight = self._land(request_id, now)
        self.cancelled += 1
        self._spare(flight)
        self._tell(flight, "cancelled", now, output_tokens, None, None)

    def poll(self, now: float) -> list[Decided]:
        """Decide what can be decided of the queued requests, first in first out.

        Call it when something ended, began to decode or was scraped while ``queued`` is not 0,
        and at ``next_poll_s``. Nobody overtakes: a backend that somebody waits for is not for
        those who came later, queued or not. So a prompt that needs much KV gets its turn, and one
        that may go to some backends only holds nobody up who may go elsewhere.

        Raises:
            PollError: an error of ours with one of them; it says who had been decided before.
        """
        decided: list[Decided] = []
        self._look_s = math.inf
        try:
            self._decide_queued(decided, now)
        except Exception as error:
            if self._turn is None:
                raise
            self._lose(self._turn)
            raise PollError(self._turn, decided) from error
        finally:
            self._turn = None
        return decided

    def next_poll_s(self) -> float | None:
        """When ``poll`` must be called at the latest; ``None`` while nobody waits."""
        if not self.queued:
            return None
        return min(self._waiting.next_deadline_s(), self.state.next_half_open_s(), self._look_s)

    # -- inside ------------------------------------------------------------------------------

    def _decide_queued(self, decided: list[Decided], now: float) -> None:
        """One after the other; ``_turn`` is whose turn it is."""
        self._drop_claims()
        hopeless: set[str] = set()
        for entry in self._waiting:
            self._turn = entry.request
            decision = self._reconsider(entry, hopeless, now)
            if decision is not None:
                self._waiting.leave(entry.request.request_id)
                decided.append((entry.request, decision))

    def _place(self, request: Request, tried: frozenset[str], now: float) -> Decision:
        options = self._options(request, tried, now)
        if isinstance(options, Reject):
            return options
        if not request.forecast.p90_tokens:
            request.forecast = self._predictor.forecast(request)
        return self._decide(request, options, tried, now)

    def _decide(
        self,
        request: Request,
        options: list[BackendState] | Wait,
        tried: frozenset[str],
        now: float,
    ) -> Decision:
        """Send a request, let it wait, or turn it away."""
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

    def _reconsider(self, entry: Waiting, hopeless: set[str], now: float) -> Assign | Reject | None:
        decision: Decision = SATURATED
        if entry.request.model not in hopeless:
            decision = self._again(entry, hopeless, now)
        if isinstance(decision, Wait):
            if now < entry.deadline_s:
                return None
            decision = self._waiting.give_up(entry.request)
        return self._rejected(entry, decision, now) if isinstance(decision, Reject) else decision

    def _rejected(self, entry: Waiting, rejection: Reject, now: float) -> Reject:
        """Count a request that leaves the queue without an answer."""
        if entry.tried:
            self.failed += 1
        else:
            self.rejected += 1
        if entry.request.explain:
            self._account(entry.request, rejection, entry.tried, now)
        return rejection

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
