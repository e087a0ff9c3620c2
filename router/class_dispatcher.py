"""The dispatcher where service classes are scheduled; the plain one knows nothing of classes.

It differs in three places: a new request is sent only to a backend that is open to it, else waits,
is let in by a preemption, or is sent away at once (``router.queue.desk``); the queue is decided in
order of rank; and it may take a request back from a backend before its first byte
(``router.recalling``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

from router.deciding import SATURATED, chosen_of
from router.dispatcher import Decided, Dispatcher
from router.domain.decision import Assign, Decision, Reject, Wait
from router.domain.protocols import Hold, Policy
from router.domain.request import Request
from router.domain.slo import slo_from_json
from router.fleet_state.backend import BackendState
from router.pairing import Pair
from router.perf.estimate import ttft_s
from router.queue.class_room import Entry
from router.queue.desk import Desk
from router.queue.waiting_room import WaitingRoom
from router.recalling import Recalling

Claim = tuple[int, float]


class ClassDispatcher(Recalling):
    """A dispatcher with a desk; build it with ``serving``."""

    def serving(self, desk: Desk) -> Self:  # noqa: D102
        super().serving(desk)
        # The room of classes offers what the plain dispatcher asks of a waiting room.
        self._waiting = cast(WaitingRoom, desk.room)
        self._claims: dict[int, Claim] = {}
        return self

    def use_policy(self, policy: Policy, recipe: Mapping[str, Any], now: float) -> None:
        """Decide with another policy, and schedule by the classes and targets that come with it."""
        super().use_policy(policy, recipe, now)
        if recipe.get("slos"):
            slos = {name: slo_from_json(slo) for name, slo in recipe["slos"].items()}
            self.desk.retarget(slos)
            self._look_s = now

    # -- hooks of the plain dispatcher -------------------------------------------------------

    def _decide_queued(self, decided: list[Decided], now: float) -> None:
        """In order of rank."""
        self._claims.clear()
        desk = self.desk
        for entry in desk.room.expired(now):
            self._turn = entry.request
            decided.append((entry.request, self._last_chance(entry, now)))
        turns = desk.room.turns(now)
        while (turn := turns.next()) is not None:
            self._turn = turn.request
            decision = self._again_by_class(turn, now)
            if decision is None:
                turns.stays(turn)
            else:
                decided.append((turn.request, decision))
        for entry in desk.room.surplus():
            self._turn = entry.request
            self._leave(entry, now)
            decided.append((entry.request, self._rejected(entry, desk.shed(entry, (), now), now)))

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

    # -- inside ------------------------------------------------------------------------------

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


def desk_of(dispatcher: Dispatcher) -> Desk | None:
    """The desk of a dispatcher; ``None`` where classes are not scheduled."""
    desk: Any = getattr(dispatcher, "desk", None)
    return desk if isinstance(desk, Desk) else None
