"""Requests that are sent and have no first token yet: a tighter one may take the place of a looser.

I8 here: a request that was taken back goes to another backend; where there is no other, to the
same after ``_FORGET_S``, when the engine has let go of it for sure. It had answered nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

from router.dispatcher import Dispatcher
from router.domain.decision import Assign
from router.domain.request import Request
from router.fleet_state.backend import BackendState
from router.fleet_state.flight import Flight
from router.queue.class_room import Entry
from router.queue.desk import Desk
from router.queue.gate import Relief

_MOST_RECALLS = 2
_FORGET_S = 5.0


class Recalling(Dispatcher):
    """Remembers who was sent and may be taken back, and where from.

    Attributes:
        desk: schedules the classes.
    """

    desk: Desk
    recalls = True

    def serving(self, desk: Desk) -> Self:
        """Schedule classes by this desk; must be called before the first request."""
        self.desk = desk
        self._observers = (*self._observers, desk)
        self._sent: dict[str, Entry] = {}  # without a first token
        self._taken_back: dict[str, Entry] = {}  # a moment ago
        return self

    def remove_backend(self, backend: str, now: float) -> None:  # noqa: D102
        self.desk.gate.forget(self.state.get(backend).index)
        super().remove_backend(backend, now)

    def first_token(self, request_id: str, now: float) -> None:
        """The first token of an in-flight request arrived: nobody may take it back any more."""
        self._sent.pop(request_id, None)
        super().first_token(request_id, now)

    def presume_first_token(self, request_id: str, now: float) -> None:
        """By now its prefill should be over: nobody may take it back any more."""
        self._sent.pop(request_id, None)
        super().presume_first_token(request_id, now)

    # -- inside ------------------------------------------------------------------------------

    def _land(self, request_id: str, now: float) -> Flight:
        self._sent.pop(request_id, None)
        return super()._land(request_id, now)

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

    def _go(self, entry: Entry, backend: BackendState, now: float) -> Assign:
        assignment = self._send(entry.request, backend, entry.tried, now)
        self.desk.room.leave(entry.request.request_id, sent=True)
        self.desk.sent(entry, backend, now)
        self._sent[entry.request.request_id] = entry
        return assignment

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
