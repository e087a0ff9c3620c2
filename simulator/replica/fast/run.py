"""The pending event of a fast engine: when it ends, where it stands, and how to cut it short."""

from __future__ import annotations

import math
from bisect import bisect_right


class PendingRun:
    """``_run`` iterations in which nobody comes or goes, over at ``_end``.

    With ``_bounds`` these are the ends of the iterations, one by one (a long prompt in chunks).
    Without, the first takes ``_extra + _first`` seconds and each further one ``_increment`` more
    than the one before, ``_extra`` not counted (decodes).
    """

    __slots__ = ("_began", "_bounds", "_end", "_extra", "_first", "_increment", "_run")

    def _rest(self) -> None:
        """Nothing is running."""
        self._run = 0
        self._began = self._extra = self._first = self._increment = 0.0
        self._bounds: list[float] | None = None
        self._end = math.inf

    def _time_at(self, steps: int) -> float:
        """When the first ``steps`` iterations of the run are over."""
        if self._bounds is not None:
            return self._bounds[steps - 1]
        return self._began + self._extra + elapsed_until(steps, self._first, self._increment)

    def _step_at(self, now: float) -> int:
        """Which iteration of the run is in progress, counted from 1."""
        if self._run <= 1:
            return 1
        if self._bounds is not None:
            return min(bisect_right(self._bounds, now) + 1, self._run)
        elapsed = now - self._began - self._extra
        return min(iteration_at(elapsed, self._first, self._increment), self._run)

    def _cut(self, now: float, further: int) -> None:
        """End the run ``further`` iterations after the one in progress."""
        if self._run <= 1:
            return
        steps = self._step_at(now) + further
        if steps < self._run:
            self._run = steps
            self._end = self._time_at(steps)


def elapsed_until(iterations: int, first_s: float, increment_s: float) -> float:
    """T(j): seconds that the first ``iterations`` take."""
    return iterations * first_s + increment_s * (iterations * (iterations - 1) * 0.5)


def iteration_at(elapsed_s: float, first_s: float, increment_s: float) -> int:
    """Which iteration is in progress ``elapsed_s`` after the first began, counted from 1.

    Iteration ``j`` takes ``first_s + (j-1) * increment_s``; one that ends right then is over.
    """
    if elapsed_s < first_s:
        return 1
    # T(j) = p*j + d*j*j/2; this form of the root is stable when the increment vanishes.
    p = first_s - increment_s / 2
    j = int(2 * elapsed_s / (p + math.sqrt(p * p + 2 * increment_s * elapsed_s))) + 1
    while j > 1 and elapsed_until(j - 1, first_s, increment_s) > elapsed_s:
        j -= 1
    while elapsed_until(j, first_s, increment_s) <= elapsed_s:
        j += 1
    return j
