"""The gateway's one clock."""

from __future__ import annotations

import time


class MonotonicClock:
    """Implements ``domain.protocols.Clock``: seconds since some start, never backwards."""

    now = staticmethod(time.monotonic)
    """Seconds, the event loop's own axis; asked ten times a request, so with nothing around it."""
