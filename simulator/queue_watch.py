"""Looks after one dispatcher's queue: decides when told to, and when a deadline comes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from router.dispatcher import Dispatcher
from router.domain.decision import Assign, Reject
from router.domain.request import Request
from simulator.processes import SimClock

Decided = Callable[[Request, Assign | Reject, float], None]


class QueueWatch:
    """One gateway replica's queue on the virtual clock.

    Args:
        clock: the virtual clock.
        dispatcher: whose queue.
        decided: told every decision about a queued request.

    Attributes:
        occupied: ``False`` only if nobody can be waiting; spares the question, most of the time.
    """

    def __init__(self, clock: SimClock, dispatcher: Dispatcher, decided: Decided) -> None:
        self._clock = clock
        self.dispatcher = dispatcher
        self._decided = decided
        self._looks_s = math.nan
        self._looking = self._again = False
        self.occupied = False

    def look(self, now: float) -> None:
        """Decide what can be decided.

        A request that was queued, sent and bounced at once comes back here while the first look
        still goes on: that one then looks again, so the stack stays flat.
        """
        if not self.dispatcher.queued:
            self.occupied = False
            return
        self._again = True
        if self._looking:
            return
        self._looking = True
        while self._again and self.dispatcher.queued:
            self._again = False
            for request, decision in self.dispatcher.poll(now):
                self._decided(request, decision, now)
        self._looking = False
        self.look_later()

    def look_later(self) -> None:
        """Make sure that somebody looks when the next deadline comes."""
        self.occupied = True
        at = self.dispatcher.next_poll_s()
        if at is None or at in (math.inf, self._looks_s):
            return
        self._looks_s = at
        self._clock.call_at(at, partial(self._due, at))

    def _due(self, at: float, now: float) -> None:
        if at == self._looks_s:  # else an earlier deadline took its place
            self._looks_s = math.nan
            self.look(now)
