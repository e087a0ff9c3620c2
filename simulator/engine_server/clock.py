"""Emulated time: real time, scaled, and frozen while the engine hangs."""

from __future__ import annotations

from collections.abc import Callable


class EngineClock:
    """Seconds of emulated engine time since the clock was made.

    Args:
        time: a monotonic source of real seconds, such as ``loop.time``.
        speed: emulated seconds per real second; 10 serves a 2 s request in 0.2 s.
    """

    def __init__(self, time: Callable[[], float], speed: float = 1.0) -> None:
        if not speed > 0:
            raise ValueError(f"speed must be positive, got {speed}")
        self.speed = speed
        self._time = time
        self._origin = time()
        self._frozen_s: float | None = None

    @property
    def paused(self) -> bool:
        """Whether emulated time stands still."""
        return self._frozen_s is not None

    def now(self) -> float:
        """Emulated seconds since the start, less the time spent paused."""
        if self._frozen_s is not None:
            return self._frozen_s
        return (self._time() - self._origin) * self.speed

    def real(self, at_s: float) -> float:
        """When the source of time will read that ``at_s`` has come, if nothing pauses it."""
        return self._origin + at_s / self.speed

    def pause(self) -> None:
        """Freeze emulated time."""
        if self._frozen_s is None:
            self._frozen_s = self.now()

    def resume(self) -> None:
        """Let emulated time go on from where it froze."""
        if self._frozen_s is not None:
            self._origin = self._time() - self._frozen_s / self.speed
            self._frozen_s = None
