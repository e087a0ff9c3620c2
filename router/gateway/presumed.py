"""When prompts should be prefilled whose answers are not streamed, so that nobody can see it.

Without that they would count as backlog until the whole answer is there, and a policy that binds
late would keep other requests waiting for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from router.gateway.ticket import Ticket

SLACK_S = 0.004
"""Those that are due so close together are told together: most are over before they are due, and
a timer for each would cost every request 3 us."""


class Presumed:
    """Tells tickets that their prompt should be prefilled.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._due: list[tuple[float, int, Ticket]] = []
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None
        self._rings_s = 0.0

    def at(self, due_s: float, ticket: Ticket) -> None:
        """Tell this ticket then, if it is still open."""
        heappush(self._due, (due_s, next(self._numbers), ticket))
        if self._timer is None or due_s + SLACK_S < self._rings_s:
            self._arm(due_s)

    def close(self) -> None:
        """Tell nobody any more: the gateway ends, or nobody is under way who could be told.

        A timer that rings for those who are over would meet the next request, or its answer.
        """
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def idle(self) -> bool:
        """Whether nobody is to be told anything."""
        return self._timer is None and not self._due

    def _arm(self, due_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_s = due_s + SLACK_S
        delay_s = max(0.0, self._rings_s - self._clock())
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = self._clock()
        due = self._due
        while due and (due[0][0] <= now or not due[0][2].open):
            heappop(due)[2].presume_first_token(now)
        if due:
            self._arm(due[0][0])
