"""Says in the log whom a breaker cuts off and who is used again: not everybody has the page."""

from __future__ import annotations

import logging

from router.dispatcher import Dispatcher
from router.gateway.lull import Rest

log = logging.getLogger("motley.health")

LOOK_S = 0.5


class BreakerWatch:
    """Compares the breakers of the fleet with those of the last look."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._cut_off: set[str] = set()

    def look(self) -> None:
        """Tell what changed; a probe that a breaker lets through is no change yet."""
        cut_off = {
            backend.spec.name
            for backend in self._dispatcher.state.backends
            if backend.breaker.state != "closed"
        }
        present = {backend.spec.name for backend in self._dispatcher.state.backends}
        for name in sorted(cut_off - self._cut_off):
            log.warning("backend %s is cut off: it failed too often, its breaker is open", name)
        for name in sorted((self._cut_off - cut_off) & present):
            log.warning("backend %s is used again: its breaker is closed", name)
        self._cut_off = cut_off

    async def keep_looking(self, rest: Rest) -> None:
        """The chore."""
        while True:
            self.look()
            await rest(LOOK_S)
