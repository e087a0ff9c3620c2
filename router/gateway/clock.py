"""The gateway's one clock."""

from __future__ import annotations

import time


class MonotonicClock:
    """Implements ``domain.protocols.Clock``: seconds since some start, never backwards."""

    def now(self) -> float:
        """Seconds, the event loop's own axis."""
        return time.monotonic()
