"""A deadline that moves: read when it rings, not re-armed with every chunk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Deadline:
    """Calls ``expired`` once ``due()`` has passed.

    Progress only moves ``due`` later, so the timer is left alone and looks again when it rings;
    ``arm`` is for phases that may move it earlier.

    Args:
        clock: seconds, monotonic.
        due: when it would expire as things stand, on the same axis.
        expired: called once, from the event loop.
    """

    __slots__ = ("_clock", "_due", "_expired", "_timer")

    def __init__(
        self, clock: Callable[[], float], due: Callable[[], float], expired: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._due = due
        self._expired = expired
        self._timer: asyncio.TimerHandle | None = None

    def arm(self) -> None:
        """Start, or start anew because ``due`` may have moved earlier."""
        self.cancel()
        delay = max(0.0, self._due() - self._clock())
        self._timer = asyncio.get_running_loop().call_later(delay, self._ring)

    def cancel(self) -> None:
        """Never expire."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        if self._clock() < self._due():
            self.arm()
        else:
            self._expired()
