"""SimPy around the sans-IO parts: a clock, and one process per engine.

Only events with a callback are used where requests pass: generator processes cost as much,
``AnyOf`` five times more. Periodic things (scrapes, plans, probes) are callbacks too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import simpy

from router.domain.fleet import BackendSpec
from router.domain.state import EngineSignals
from simulator.replica.interface import Replica
from simulator.replica.job import Event, Job


class Alarm(simpy.Event):
    """A timer that can be set again once it rang: half the price of a new ``Timeout`` each time.

    Args:
        env: SimPy's environment.
        ring: called with the alarm when it is due.
    """

    def __init__(self, env: simpy.Environment, ring: Callable[[Any], None]) -> None:
        super().__init__(env)
        self._ok = True
        self._ring = ring

    def set(self, delay_s: float) -> None:
        """Ring after ``delay_s``; the alarm must not be set already."""
        self.callbacks = [self._ring]
        self.env.schedule(self, delay=delay_s if delay_s > 0.0 else 0.0)


class SimClock:
    """The virtual clock: SimPy's environment, with exact times and no step back.

    ``now + (at - now)`` can miss ``at`` by one unit in the last place, so whoever sets an alarm
    remembers the time it stands for, and ``tick`` never lets the clock run backwards.
    """

    __slots__ = ("env", "now")

    def __init__(self) -> None:
        self.env = simpy.Environment()
        self.now = 0.0

    def tick(self, when: float) -> float:
        """Move to ``when`` and return the time."""
        now = self.now
        if when > now:
            self.now = now = when
        return now

    def call_at(self, when: float, call: Callable[[float], object]) -> None:
        """Call ``call(now)`` at ``when``, for what is rare: an ``Alarm`` is made for it."""

        def due(_: Any) -> None:
            call(self.tick(when))

        Alarm(self.env, due).set(when - self.now)

    def every(self, step_s: float, call: Callable[[float], object]) -> None:
        """Call ``call(now)`` at 0, ``step_s``, 2 ``step_s`` and so on."""
        count = 0

        def again(now: float) -> None:
            nonlocal count
            count += 1
            self.call_at(count * step_s, again)
            call(now)

        self.call_at(0.0, again)


class Verdict(Enum):
    """How an engine answered a request at its door."""

    ACCEPTED = "accepted"
    BUSY = "busy"
    BROKEN = "broken"


class EngineProcess:
    """One backend: its replica, when to wake it, and the ways it can be ill.

    A hang is a stop of the engine's own clock: while it hangs, its time stands still; afterwards
    it lags behind by as long as the hang took.

    Args:
        clock: the virtual clock.
        index: position among the backends.
        spec: the backend.
        replica: the simulated engine.
        delay_s: one-way network delay from the gateway.
        on_events: told what happened in the engine, and the time.
    """

    __slots__ = (
        "_alarm",
        "_clock",
        "_frozen_s",
        "_lag_s",
        "_next_own_s",
        "_next_s",
        "_on_events",
        "_spare",
        "delay_s",
        "erring",
        "hung_since_s",
        "index",
        "longest_job_tokens",
        "replica",
        "spec",
        "up",
    )

    def __init__(  # noqa: PLR0917 - built in one place
        self,
        clock: SimClock,
        index: int,
        spec: BackendSpec,
        replica: Replica,
        delay_s: float,
        on_events: Callable[[EngineProcess, Sequence[Event], float], None],
    ) -> None:
        self._clock = clock
        self.index = index
        self.spec = spec
        self.replica = replica
        self.longest_job_tokens = replica.config.longest_job_tokens
        self.delay_s = delay_s
        self._on_events = on_events
        self.up = True
        self.erring = False
        self.hung_since_s: float | None = None
        self._frozen_s = 0.0
        self._lag_s = 0.0
        self._next_s = self._next_own_s = math.inf
        self._alarm: Alarm | None = None
        self._spare: Alarm | None = None

    @property
    def responsive(self) -> bool:
        """Whether a health check or a scrape would get an answer."""
        return self.up and self.hung_since_s is None

    @property
    def occupied(self) -> bool:
        """Whether any request is inside."""
        return self.replica.running + self.replica.waiting > 0

    @property
    def stuck(self) -> bool:
        """Whether nothing will ever happen here by itself."""
        return self._next_s == math.inf

    def submit(self, job: Job, now: float) -> Verdict:
        """A request reaches the engine."""
        if not self.up or self.erring:
            return Verdict.BROKEN
        if not self.replica.submit(job, self._local(now)):
            return Verdict.BUSY
        self._reschedule()
        return Verdict.ACCEPTED

    def cancel(self, job_id: str, now: float) -> None:
        """The gateway closed the connection of this request."""
        if self.replica.cancel(job_id, self._local(now)):
            self._reschedule()

    def snapshot(self, now: float) -> EngineSignals:
        """What a scrape reads now."""
        return self.replica.snapshot(self._local(now))

    # -- faults ------------------------------------------------------------------------------

    def slow(self, factor: float, now: float) -> None:
        """Iterations take ``factor`` times as long; 1.0 is healthy."""
        self.replica.set_speed(factor, self._local(now))
        self._reschedule()

    def kill(self, now: float) -> list[Job]:
        """Die; returns what was in it."""
        self.thaw(now)
        lost = list(self.replica.kill(self._local(now)))
        self.up = False
        self._reschedule()
        return lost

    def revive(self) -> None:
        """Be back, empty and cold."""
        self.up = True

    def freeze(self, now: float) -> None:
        """Hang: accept everything, do nothing."""
        if self.hung_since_s is None:
            self._frozen_s = self._local(now)
            self.hung_since_s = now
            self._reschedule()

    def thaw(self, now: float) -> None:
        """Go on where it hung."""
        if self.hung_since_s is not None:
            self.hung_since_s = None
            self._lag_s = now - self._frozen_s
            self._reschedule()

    # -- inside ------------------------------------------------------------------------------

    def _local(self, now: float) -> float:
        """The engine's own time."""
        return now - self._lag_s if self.hung_since_s is None else self._frozen_s

    def _reschedule(self) -> None:
        """Set an alarm for the next event; an older one finds itself replaced."""
        own = math.inf if self.hung_since_s is not None else self.replica.next_event_s()
        at = own + self._lag_s
        if at == self._next_s:
            return
        self._next_s, self._next_own_s = at, own
        if at == math.inf:
            self._alarm = None
            return
        clock, alarm = self._clock, self._spare
        if alarm is None:
            alarm = Alarm(clock.env, self._wake)
        self._alarm, self._spare = alarm, None
        alarm.set(at - clock.now)

    def _wake(self, alarm: Alarm) -> None:
        self._spare = alarm
        if alarm is not self._alarm:
            return
        now = self._clock.tick(self._next_s)
        self._alarm = None
        self._next_s = math.inf
        # Adding the lag and taking it off again may miss the event by a hair: never go below it.
        events = self.replica.advance(max(now - self._lag_s, self._next_own_s))
        self._reschedule()
        if events:
            self._on_events(self, events, now)
