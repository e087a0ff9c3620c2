"""The dispatcher where service classes are scheduled; the plain one knows nothing of classes.

It differs in three places: a new request is sent only to a backend that is open to it, else waits,
is let in by a preemption, or is sent away at once (``router.queue.desk``); the queue is decided in
order of rank; and it may take a request back from a backend before its first byte.

I8 here: a request that was taken back goes to another backend; where there is no other, to the
same after ``_FORGET_S``, when the engine has let go of it for sure. It had answered nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from router.deciding import SATURATED, chosen_of
from router.dispatcher import Dispatcher
from router.domain.decision import Assign, Decision, Reject, Wait
from router.domain.protocols import Hold, Policy
from router.domain.request import Request
from router.domain.slo import slo_from_json
from router.fleet_state.backend import BackendState
from router.fleet_state.flight import Flight
from router.pairing import Pair
from router.perf.estimate import ttft_s
from router.queue.class_room import Entry
from router.queue.desk import Desk
from router.queue.gate import Relief
from router.queue.waiting_room import WaitingRoom

_MOST_RECALLS = 2
_FORGET_S = 5.0
Claim = tuple[int, float]


class ClassDispatcher(Dispatcher):
    """A dispatcher with a desk; build it with ``serving``."""

    desk: Desk
    recalls = True

    def serving(self, desk: Desk) -> ClassDispatcher:
        """Schedule classes by this desk; must be called before the first request."""
        self.desk = desk
        self._observers = (*self._observers, desk)
        # The room of classes offers what the plain dispatcher asks of a waiting room.
        self._waiting = cast(WaitingRoom, desk.room)
        self._sent: dict[str, Entry] = {}  # without a first token
        self._claims: dict[int, Claim] = {}
        self._taken_back: dict[str, Entry] = {}  # a moment ago
        return self

    def poll(self, now: float) -> list[tuple[Request, Assign | Reject]]:
        """Decide what can be decided of the queued requests, in order of rank."""
        decided: list[tuple[Request, Assign | Reject]] = []
        self._look_s = math.inf
        self._claims.clear()
        desk = self.desk
        for entry in desk.room.expired(now):
            decided.append((entry.request, self._last_chance(entry, now)))
        turns = desk.room.turns(now)
        while (turn := turns.next()) is not None:
            decision = self._again_by_class(turn, now)
            if decision is None:
                turns.stays(turn)
            else:
                decided.append((turn.request, decision))
        for entry in desk.room.surplus():
            self._leave(entry, now)
            decided.append((entry.request, self._rejected(entry, desk.shed(entry, (), now), now)))
        return decided

    def use_policy(self, policy: Policy, recipe: Mapping[str, Any], now: float) -> None:
        """Decide with another policy, and schedule by the classes and targets that come with it."""
        super().use_policy(policy, recipe, now)
        if recipe.get("slos"):
            slos = {name: slo_from_json(slo) for name, slo in recipe["slos"].items()}
            self.desk.retarget(slos)
            self._look_s = now

    # -- hooks of the plain dispatcher -------------------------------------------------------

    def cancel(self, request_id: str, now: float, *, output_tokens: int = 0) -> None:
        """The client left, whether the request waits here or is in flight."""
        super().cancel(request_id, now, output_tokens=output_tokens)
        self.desk.settle(now)

    def _decide(
        self,
        request: Request,
        options: list[BackendState] | Wait,
        tried: frozenset[str],
        now: float,
    ) -> Decision:
        desk = self.desk
        everyone = self.state.candidates(request.model, now)
        entry = self._entry(request, tried, everyone, now)
        if isinstance(options, Wait):
            return self._fall_back(request, tried, now) or self._wait(entry, options, everyone, now)
        if entry.lane not in desk.room.lanes:  # nobody of its own class overtakes
            decision = self._try(entry, self._unclaimed(entry, options, now), now)
            if isinstance(decision, Assign):
                return decision
        if desk.rules.preempt and entry.urgent:
            decision = self._preempt(entry, options, now)
            if decision is not None:
                return decision
        return self._fall_back(request, tried, now) or self._wait(entry, SATURATED, everyone, now)

    def _place_at_once(self, request: Request, tried: frozenset[str], now: float) -> Assign | None:
        options = self._options(request, tried, now)
        if not isinstance(options, list):
            return None
        everyone = self.state.candidates(request.model, now)
        entry = self._entry(request, tried, everyone, now)
        if entry.lane in self.desk.room.lanes:
            return None
        decision = self._try(entry, self._unclaimed(entry, options, now), now)
        return decision if isinstance(decision, Assign) else None

    def _land(self, request_id: str, now: float) -> Flight:
        self._sent.pop(request_id, None)
        return super()._land(request_id, now)

    def first_token(self, request_id: str, now: float) -> None:
        """The first token of an in-flight request arrived: nobody may take it back any more."""
        self._sent.pop(request_id, None)
        super().first_token(request_id, now)

    def presume_first_token(self, request_id: str, now: float) -> None:
        """By now its prefill should be over: nobody may take it back any more."""
        self._sent.pop(request_id, None)
        super().presume_first_token(request_id, now)

    # -- inside ------------------------------------------------------------------------------

    def _entry(
        self,
        request: Request,
        tried: frozenset[str],
        everyone: Sequence[BackendState],
        now: float,
    ) -> Entry:
        """Look it up; one that another backend has failed still knows where it was taken from."""
        entry = self.desk.entry(request, tried, everyone, now)
        before = self._taken_back.get(request.request_id)
        if before is not None:
            entry.left, entry.again_s = before.left, before.again_s
        return entry

    def _wait(
        self, entry: Entry, why: Wait, everyone: Sequence[BackendState], now: float
    ) -> Wait | Reject:
        rejection = self.desk.admit(entry, everyone, now)
        if rejection is not None:
            return rejection
        if self.queued:  # time has passed: somebody may go by now
            self._look_s = now
        self.desk.enter(entry, now)
        return why

    def _unclaimed(
        self, entry: Entry, options: list[BackendState], now: float
    ) -> list[BackendState]:
        if entry.left:
            others = [b for b in options if b.index not in entry.left]
            options = others or (options if now >= entry.again_s else others)
        if not self.queued:
            self._claims.clear()
        if not self._claims:
            return options
        mine = self._standing(entry, now)
        return [b for b in options if self._claims.get(b.index, (9, 0.0)) >= mine]

    def _try(self, entry: Entry, options: list[BackendState], now: float) -> Assign | Hold | None:
        """Let the policy choose among the backends that are open to it."""
        opened = self.desk.open_to(entry, options, now) if options else options
        chosen = self._policy.choose(entry.request, opened, now) if opened else None
        if self.pairing is not None:
            pair = self._open_pair(entry, chosen_of(chosen), now)
            if pair is not None:
                return self._go_to_pair(entry, pair, now)
        if chosen is None or isinstance(chosen, Hold):
            return chosen
        return self._go(entry, cast(BackendState, chosen), now)

    def _go(self, entry: Entry, backend: BackendState, now: float) -> Assign:
        assignment = self._send(entry.request, backend, entry.tried, now)
        self.desk.room.leave(entry.request.request_id, sent=True)
        self.desk.sent(entry, backend, now)
        self._sent[entry.request.request_id] = entry
        return assignment

    def _open_pair(self, entry: Entry, whole: BackendState | None, now: float) -> Pair | None:
        """A pair that keeps the request's targets and spoils nobody's."""
        mine = self._standing(entry, now) if self._claims else (0, 0.0)
        barred = [index for index, claim in self._claims.items() if claim < mine]
        pair = self._pair(entry.request, whole, entry.tried, now, barred=barred)
        return pair if pair is not None and self.desk.pair_opens(entry, pair, now) else None

    def _go_to_pair(self, entry: Entry, pair: Pair, now: float) -> Assign:
        """Send it to a pair, from which nobody takes it back."""
        assignment = self._send_to_pair(entry.request, pair, entry.tried, now)
        self.desk.room.leave(entry.request.request_id, sent=True)
        self.desk.sent(entry, pair.prefill, now)
        return assignment

    def _again_by_class(self, entry: Entry, now: float) -> Assign | Reject | None:
        """Ask for a queued request; if it stays, it claims what it waits for."""
        options = self._options(entry.request, entry.tried, now)
        if isinstance(options, Reject):
            self._leave(entry, now)
            return self._rejected(entry, options, now)
        if isinstance(options, Wait):
            return None
        decision = self._try(entry, self._unclaimed(entry, options, now), now)
        if isinstance(decision, Assign):
            return decision
        if isinstance(decision, Hold):
            awaited: Sequence[BackendState] = (cast(BackendState, decision.backend),)
        elif options and self._standing(entry, now)[0] == 0:
            awaited = (self.desk.gate.soonest(options),)
        else:
            awaited = options
        standing = self._standing(entry, now)
        for backend in awaited:
            self._claims.setdefault(backend.index, standing)
        return None

    def _standing(self, entry: Entry, now: float) -> Claim:
        """Whose claims hold against whom: the aged before all, then by how tight the class is.

        Requests of one class do not block each other: the first of them may be waiting for
        something that the next one, with more time left, does not need.
        """
        group, _ = self.desk.room.rank(entry, now)
        return group, (entry.slo.ttft_s or math.inf) if group == 1 else 0.0

    def _last_chance(self, entry: Entry, now: float) -> Assign | Reject:
        """Its time is up: send it if any backend is open to it, whatever the policy thinks."""
        options = self._options(entry.request, entry.tried, now)
        everyone = self.state.candidates(entry.request.model, now)
        if isinstance(options, list):
            self._claims.clear()
            free = self._unclaimed(entry, options, now)
            opened = self.desk.open_to(entry, free, now, last=True)
            if opened:
                prompt = entry.request.prompt_tokens
                return self._go(entry, min(opened, key=lambda b: ttft_s(b, prompt, now)), now)
        self._leave(entry, now)
        return self._rejected(entry, self.desk.give_up(entry, everyone, now), now)

    def _leave(self, entry: Entry, now: float) -> None:
        self.desk.room.leave(entry.request.request_id)
        self.desk.left(entry, now)

    def _hedge_options(
        self, request: Request, tried: frozenset[str], now: float
    ) -> list[BackendState]:
        options = self._options(request, tried, now)
        entry = self._sent.get(request.request_id)
        if entry is None or not isinstance(options, list):
            return []
        return self.desk.open_to(entry, self._unclaimed(entry, options, now), now, last=True)

    def _offered(
        self, request: Request, tried: frozenset[str], now: float
    ) -> tuple[list[BackendState], dict[str, str]]:
        options = self._options(request, tried, now)
        if not isinstance(options, list):
            return [], {}
        everyone = self.state.candidates(request.model, now)
        entry = self.desk.room.get(request.request_id)
        if entry is None:
            entry = self.desk.entry(request, tried, everyone, now, counted=False)
        limits = self.desk.limits(request.model, now)
        free = {b.index for b in self._unclaimed(entry, options, now)}
        offered, barred = [], {}
        for backend in options:
            why = self.desk.gate.obstacle(entry, backend, limits, now)
            if backend.index not in free:
                why = why or "somebody before it waits for it"
            if why:
                barred[backend.spec.name] = why
            else:
                offered.append(backend)
        return offered, barred

    def _preempt(self, entry: Entry, options: list[BackendState], now: float) -> Assign | None:
        """Take a looser request back, before its first byte, where that opens a backend."""
        limits = self.desk.limits(entry.request.model, now)
        allowed = {b.index for b in options}
        for victim in reversed(self._sent.values()):
            if not self._may_recall(victim, entry, now):
                continue
            flight = self._flights[victim.request.request_id]
            if flight.backend.index not in allowed:
                continue
            relief = Relief(
                flight.backend.cost.prompt_s(flight.prompt_tokens),
                flight.prompt_tokens + 0.5 * flight.output_tokens,
                1,
            )
            if self.desk.gate.admits(entry, flight.backend, limits, now, relief=relief):
                return self._swap(entry, victim, flight, now)
        return None

    def _may_recall(self, victim: Entry, entry: Entry, now: float) -> bool:
        if len(victim.left) >= _MOST_RECALLS or self.desk.room.aged(victim, now):
            return False
        if not victim.urgent:
            return victim.slo.ttft_s is None or victim.slo.ttft_s > (entry.slo.ttft_s or math.inf)
        theirs, mine = victim.slo.ttft_s or math.inf, entry.slo.ttft_s or math.inf
        return theirs > mine and victim.latest_start_s > entry.latest_start_s

    def _swap(self, entry: Entry, victim: Entry, flight: Flight, now: float) -> Assign:
        request_id = victim.request.request_id
        self._land(request_id, now)
        self._spare(flight)
        self._tell(flight, "cancelled", now, 0, None, None)
        victim.left |= {flight.backend.index}
        victim.again_s = now + _FORGET_S
        self._taken_back = {n: e for n, e in self._taken_back.items() if e.again_s > now}
        self._taken_back[request_id] = victim
        self.desk.events["recalled", victim.request.slo_class] += 1
        self.desk.enter(victim, now)
        self._look_s = now
        assignment = self._go(entry, flight.backend, now)
        return Assign(assignment.backend, (request_id,))


def desk_of(dispatcher: Dispatcher) -> Desk | None:
    """The desk of a dispatcher; ``None`` where classes are not scheduled."""
    desk: Any = getattr(dispatcher, "desk", None)
    return desk if isinstance(desk, Desk) else None
