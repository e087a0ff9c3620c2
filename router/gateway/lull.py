"""When chores run: right after an answer, where requests come, for then the next is farthest off.

By timers of their own they would now and then meet a request, or the answer to one, and hold it up;
and each timer wakes a process up that sleeps between two requests. While few answers end, or more
is to be done than answers end, a timer it is: nothing waits for long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from heapq import heappop, heappush
from itertools import count

Rest = Callable[[float], Awaitable[None]]
"""How a chore waits for its next turn."""

PATIENCE_S = 0.1
"""What is due so long begins, whether an answer ends or not."""
CLOSE_S = 0.5 * PATIENCE_S
"""A timer that is closer is set anew."""
AT_ONCE = 64
"""For every so many who rest, one more goes on at once."""
GAP_S = 0.001
"""Between two turns, where more is due: a burst would hold requests up."""


class Lull:
    """Lets whoever rests go on at a good moment."""

    def __init__(self) -> None:
        self._resting: list[tuple[float, int, float, asyncio.Future[None]]] = []
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None
        self._rings_s = 0.0
        self._time: Callable[[], float] = time.monotonic

    async def rest(self, seconds: float, patience_s: float | None = None) -> None:
        """Sleep for so long and then until an answer has ended.

        Args:
            seconds: at the least.
            patience_s: how much more at the most; ``PATIENCE_S`` if nothing is said.
        """
        loop = asyncio.get_running_loop()
        self._time = loop.time
        due_s = loop.time() + seconds
        latest_s = due_s + (PATIENCE_S if patience_s is None else patience_s)
        over: asyncio.Future[None] = loop.create_future()
        heappush(self._resting, (latest_s, next(self._numbers), due_s, over))
        if self._timer is None or latest_s < self._rings_s:
            self._arm(loop)
        await over

    def answered(self) -> None:
        """An answer has ended: whoever is first may go on, the others after the next."""
        resting = self._resting
        if not resting:
            return
        now = self._time()
        if resting[0][2] <= now:
            self._wake(now, 1)
        if self._rings_s < now + CLOSE_S and resting and self._rings_s < resting[0][0]:
            self._arm(asyncio.get_running_loop())  # it need not ring where answers end

    def close(self) -> None:
        """Wake nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        now = loop.time()
        self._rings_s = max(self._resting[0][0], now + GAP_S)
        self._timer = loop.call_later(self._rings_s - now, self._ring)

    def _ring(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        self._wake(loop.time(), 2)  # whoever is due next need not ring again
        if self._resting:
            self._arm(loop)

    def _wake(self, now: float, few: int) -> None:
        """Let a few go on that are due, and more where there are many."""
        resting = self._resting
        for _ in range(few + len(resting) // AT_ONCE):
            if not resting or resting[0][2] > now:
                return
            over = heappop(resting)[3]
            if not over.done():  # whoever rested was cancelled
                over.set_result(None)
