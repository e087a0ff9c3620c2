"""When to plan again: on a period, when a backend changed its speed, when the fleet changed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from router.fleet_state.backend import BackendState

Reason = Literal["period", "drift", "membership"]

TICK_S = 1.0
"""How often the drivers look whether a round is due."""
_CALM_SHARE = 0.1
"""Of the period: events closer together than this are answered by one round."""


class Triggers:
    """Decides when a round is due; asked every ``TICK_S`` or so.

    Args:
        interval_s: the period.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._last_s: float | None = None
        self._members: frozenset[str] = frozenset()
        self._drifted = False

    def drifted(self) -> None:
        """A backend takes another time than it did."""
        self._drifted = True

    def settle(self, members: frozenset[str]) -> None:
        """The fleet was changed on purpose: that is no reason to plan again."""
        self._members = members

    def due(self, now: float, members: frozenset[str]) -> Reason | None:
        """Why to plan now, or ``None``; what is answered counts as done.

        Args:
            now: seconds.
            members: backends that can serve.
        """
        if self._last_s is None:
            self._last_s, self._members = now, members
            return None
        waited_s = now - self._last_s
        reason: Reason | None = None
        if waited_s >= self._interval_s:
            reason = "period"
        elif waited_s >= _CALM_SHARE * self._interval_s:
            if members != self._members:
                reason = "membership"
            elif self._drifted:
                reason = "drift"
        if reason is not None:
            self._last_s, self._members, self._drifted = now, members, False
        return reason


def serving(backends: Iterable[BackendState]) -> list[BackendState]:
    """Backends that a plan can count on: those that can serve now, or all if none can.

    Plans are of whole requests: those that serve one half only are left out.
    """
    known = [backend for backend in backends if backend.spec.role == "both"]
    return [backend for backend in known if backend.usable] or known
