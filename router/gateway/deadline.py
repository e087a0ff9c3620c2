"""A deadline that moves: looked at when a timer rings, not re-armed with every event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Deadline:
    """Calls ``expired`` once ``due()`` has passed.

    One timer an attempt, whatever happens to it: it rings after ``look_s`` at the latest and is
    set anew to what ``due`` says then. No phase's limit is shorter than ``look_s`` and a phase
    begins no earlier than the timer was set, so a deadline is never missed.

    Args:
        clock: seconds, monotonic.
        due: when it would expire as things stand, on the same axis.
        expired: called once, from the event loop.
        look_s: shortest limit of any phase.
    """

    __slots__ = ("_clock", "_due", "_expired", "_look_s", "_timer")

    def __init__(
        self,
        clock: Callable[[], float],
        due: Callable[[], float],
        expired: Callable[[], None],
        look_s: float,
    ) -> None:
        self._clock = clock
        self._due = due
        self._expired = expired
        self._look_s = look_s
        loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = loop.call_later(look_s, self._ring)

    def cancel(self) -> None:
        """Never expire."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        left_s = self._due() - self._clock()
        if left_s <= 0:
            self._expired()
        else:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(min(left_s, self._look_s), self._ring)
