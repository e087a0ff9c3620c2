"""SimPy around the sans-IO parts: a clock, and one process per engine.

What is rare or periodic (faults, scrapes, plans, deadlines) are SimPy events. What every request
does several times, arrive and change an engine's state, waits in a heap beside them: an entry
costs a third of a SimPy event, and one that was replaced costs next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import Enum
from heapq import heappop, heappush
from itertools import count
from typing import Protocol

import simpy

from router.domain.fleet import BackendSpec
from router.domain.state import EngineSignals
from simulator.replica.interface import Replica
from simulator.replica.job import Event, Job


class Sleeper(Protocol):
    """Somebody to wake at ``wake_s``, if that is still when the time comes.

    Attributes:
        wake_s: when; whoever changes it tells the clock (``SimClock.wake_at``).
    """

    wake_s: float

    def wake(self, now: float) -> None:
        """It is ``wake_s``."""


class SimClock:
    """The virtual clock: exact times and no step back.

    SimPy counts in delays, and ``now + (at - now)`` can miss ``at`` by one unit in the last
    place; so the time an event stands for is remembered, and ``tick`` never runs backwards.
    At one time, SimPy's events go before sleepers, and each kind in the order of asking.

    Attributes:
        env: SimPy's environment.
        now: the time.
        over: set it to end ``run``.
    """

    __slots__ = ("_agenda", "_order", "_others_s", "env", "now", "over")

    def __init__(self) -> None:
        self.env = simpy.Environment()
        self.now = 0.0
        self.over = False
        self._agenda: list[tuple[float, int, Sleeper]] = []
        self._order = count()
        self._others_s = math.inf  # when SimPy's next event is due

    def run(self) -> None:
        """Let time pass until ``over``, or until nothing is left to happen."""
        agenda, env = self._agenda, self.env
        while not self.over:
            if agenda and agenda[0][0] < self._others_s:
                when, _, sleeper = heappop(agenda)
                if sleeper.wake_s == when:
                    sleeper.wake(self.tick(when))
            elif self._others_s < math.inf:
                env.step()
                self._others_s = env.peek()
            else:
                return

    def tick(self, when: float) -> float:
        """Move to ``when`` and return the time."""
        now = self.now
        if when > now:
            self.now = now = when
        return now

    def wake_at(self, when: float, sleeper: Sleeper) -> None:
        """Wake somebody who sleeps until ``when``; what was asked for before is void."""
        sleeper.wake_s = when
        if when < math.inf:
            heappush(self._agenda, (when, next(self._order), sleeper))

    def call_at(self, when: float, call: Callable[[float], object]) -> None:
        """Call ``call(now)`` at ``when``, for what is rare: a SimPy event is made for it."""

        def due(_: simpy.Event) -> None:
            call(self.tick(when))

        timer = simpy.Timeout(self.env, max(0.0, when - self.env.now))
        timer.callbacks.append(due)
        self._others_s = self.env.peek()

    def every(self, step_s: float, call: Callable[[float], object]) -> None:
        """Call ``call(now)`` at 0, ``step_s``, 2 ``step_s`` and so on."""
        done = 0

        def again(now: float) -> None:
            nonlocal done
            done += 1
            self.call_at(done * step_s, again)
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
        "_clock",
        "_frozen_s",
        "_lag_s",
        "_next_own_s",
        "_on_events",
        "delay_s",
        "erring",
        "hung_since_s",
        "index",
        "longest_job_tokens",
        "replica",
        "spec",
        "up",
        "wake_s",
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
        self.wake_s = self._next_own_s = math.inf

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
        return self.wake_s == math.inf

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
        """Be woken for the next event."""
        own = math.inf if self.hung_since_s is not None else self.replica.next_event_s()
        at = own + self._lag_s
        if at != self.wake_s:
            self._next_own_s = own
            self._clock.wake_at(at, self)

    def wake(self, now: float) -> None:
        """The next event is due."""
        # Adding the lag and taking it off again may miss the event by a hair: never go below it.
        own = max(now - self._lag_s, self._next_own_s) if self._lag_s else now
        events = self.replica.advance(own)
        self.wake_s = math.inf
        self._reschedule()
        if events:
            self._on_events(self, events, now)
