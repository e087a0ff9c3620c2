"""Events, told by comparing the fleet of one tick with that of the last: no hooks anywhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Protocol

from router.gateway.dashboard.views import Event, PlanView

MOST_EVENTS = 100
DEGRADED = 1.15
"""Slower than when it was new by this factor: worth telling."""

_STATES: Mapping[str, tuple[str, str]] = {
    "up": ("good", "is up again"),
    "draining": ("info", "is draining: nothing new is sent there"),
    "down": ("bad", "fails its health check"),
    "open": ("bad", "is cut off: its breaker is open"),
    "half_open": ("warn", "is on probation: its breaker lets a probe through"),
}


class Known(Protocol):
    """What is compared of a backend."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def state(self) -> str:
        """As in ``BackendTile``."""

    @property
    def degraded(self) -> tuple[tuple[str, float], ...]:
        """Phases that take longer than when it was new, and how many times as long."""


class Changes:
    """Remembers the last tick and what has happened since the start."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._events: deque[Event] = deque(maxlen=MOST_EVENTS)
        self._states: dict[str, str] | None = None
        self._degraded: dict[tuple[str, str], float] = {}
        self._failures = 0
        self._policy = ""
        self._verdict = ""

    @property
    def events(self) -> tuple[Event, ...]:
        """Newest first."""
        return tuple(reversed(self._events))

    def tell(self, severity: str, subject: str, text: str, at_unix_s: float) -> None:
        """Add an event of one's own."""
        self._events.append(Event(next(self._numbers), at_unix_s, severity, subject, text))

    def compare(
        self,
        fleet: Sequence[Known],
        plan: PlanView,
        policy: str,
        at: float,
        verdict: str = "",
    ) -> None:
        """Tell what is different from the last tick; the first tells nothing."""
        self._compare_states(fleet, at)
        self._compare_speeds(fleet, at)
        if plan.failures > self._failures:
            self.tell("warn", "planner", f"a round failed: {plan.last_failure}", at)
        self._failures = plan.failures
        if self._policy and policy != self._policy:
            self.tell("info", "policy", f"changed from {self._policy} to {policy}", at)
        self._policy = policy
        if verdict and verdict != self._verdict:
            self.tell("bad", "policy", verdict, at)
        self._verdict = verdict

    def _compare_states(self, fleet: Iterable[Known], at: float) -> None:
        states = {one.name: one.state for one in fleet}
        before, self._states = self._states, states
        if before is None:
            return
        for name in before.keys() - states.keys():
            self.tell("info", name, "left the fleet", at)
        for name, state in states.items():
            if name not in before:
                self.tell("info", name, "joined the fleet", at)
            elif state != before[name]:
                severity, text = _STATES.get(state, ("info", f"is now {state}"))
                self.tell(severity, name, text, at)

    def _compare_speeds(self, fleet: Iterable[Known], at: float) -> None:
        now = {(one.name, phase): x for one in fleet for phase, x in one.degraded}
        for (name, phase), factor in now.items():
            was = self._degraded.get((name, phase), 1.0)
            if factor > max(DEGRADED, was * DEGRADED):
                self.tell("bad", name, f"{phase} takes {factor:.2f} times as long as when new", at)
            elif was > DEGRADED and factor < was / DEGRADED:
                self.tell("good", name, f"{phase} is down to {factor:.2f} times its time", at)
            else:
                now[name, phase] = was if was > DEGRADED else factor
        self._degraded = now
