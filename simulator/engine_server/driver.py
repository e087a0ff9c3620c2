"""One simulated replica on the wall clock: a timer at its next event, and an ear per request."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from router.domain.state import EngineSignals
from simulator.engine_server.clock import EngineClock
from simulator.engine_server.dialect import FinishReason
from simulator.engine_server.stats import EngineStats
from simulator.replica.interface import Replica
from simulator.replica.job import Event, Job

Ending = Literal["finished", "aborted", "died"]


class Timer(Protocol):
    """A call to come."""

    def cancel(self) -> None:
        """Do not make it."""


class RealTimeLoop(Protocol):
    """What the driver needs of an asyncio loop; tests pass one whose time stands still."""

    def time(self) -> float:
        """Seconds on a monotonic axis."""

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call at ``when`` on the loop's own time."""

    def create_future(self) -> asyncio.Future[None]:
        """Something to wait for."""


@dataclass(slots=True, eq=False)
class Live:
    """One request inside the engine, as the handler that answers it sees it.

    Attributes:
        job: what the replica works on.
        finish: the finish reason it will end with.
        stream: whether the client reads a stream.
        submitted_s, first_s, last_s: when it came, and its first and latest token.
        loop: for waiting.
        tokens: tokens generated so far.
        ending: how it ended; ``None`` while it has not.
    """

    job: Job
    finish: FinishReason
    stream: bool
    submitted_s: float
    loop: RealTimeLoop
    tokens: int = 0
    ending: Ending | None = None
    first_s: float = 0.0
    last_s: float = 0.0
    _waiter: asyncio.Future[None] | None = None

    async def more(self, seen: int) -> int:
        """Wait for more than ``seen`` tokens (streams only), or the end; the tokens so far."""
        while self.tokens == seen and self.ending is None:
            await self._news()
        return self.tokens

    async def end(self) -> Ending:
        """Wait for the end."""
        while self.ending is None:
            await self._news()
        return self.ending

    def wake(self) -> None:
        """Let the handler look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _news(self) -> None:
        self._waiter = self.loop.create_future()
        await self._waiter


class Driver:
    """Advances one replica in real time and tells each request what it got.

    All times inside are emulated seconds of ``clock``. ``moved`` is called when something may have
    happened in the replica, where somebody wants to know.
    """

    def __init__(
        self, replica: Replica, clock: EngineClock, loop: RealTimeLoop, stats: EngineStats
    ) -> None:
        self.clock, self.stats = clock, stats
        self._replica, self._loop = replica, loop
        self._live: dict[str, Live] = {}
        self._timer: Timer | None = None
        self._due_s = math.inf
        self._now_s = 0.0
        self.moved: Callable[[], None] | None = None

    @property
    def in_engine(self) -> int:
        """Requests waiting or running."""
        return len(self._live)

    def submit(self, job: Job, finish: FinishReason, *, stream: bool) -> Live | None:
        """Hand ``job`` to the engine; ``None`` if its queue is full."""
        now = self._now()
        if not self._replica.submit(job, now):
            self.stats.rejected += 1
            return None
        live = Live(job, finish, stream, now, self._loop)
        self._live[job.job_id] = live
        self._arm()
        return live

    def abort(self, live: Live) -> None:
        """Take a request out of the engine; does nothing if it has ended."""
        if live.ending is None:
            self._replica.cancel(live.job.job_id, self._now())
            self.stats.aborted += 1
            self._end(live, "aborted")
            self._arm()

    def signals(self) -> EngineSignals:
        """The engine's state now."""
        now = self._now()
        self._advance(now)
        self._arm()
        return self._replica.snapshot(now)

    def slow_down(self, factor: float) -> None:
        """Make every later iteration take ``factor`` times as long."""
        self._replica.set_speed(factor, self._now())
        self._arm()

    def hang(self) -> None:
        """Stop working, keeping everything: a stalled worker."""
        self._advance(self._now())
        self.clock.pause()
        self._arm()

    def resume(self) -> None:
        """Go on after ``hang``."""
        self.clock.resume()
        self._arm()

    def die(self) -> None:
        """Lose everything: a crashed engine core."""
        self._replica.kill(self._now())
        for live in list(self._live.values()):
            self._end(live, "died")
        self._arm()

    def _now(self) -> float:
        """Emulated time, never backwards though timers may fire a little early."""
        self._now_s = max(self._now_s, self.clock.now())
        return self._now_s

    def _arm(self) -> None:
        due_s = math.inf if self.clock.paused else self._replica.next_event_s()
        if due_s == self._due_s:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due_s, self._timer = due_s, None
        if due_s < math.inf:
            self._timer = self._loop.call_at(self.clock.real(due_s), self._fire)

    def _fire(self) -> None:
        # uvloop rounds timers to milliseconds, down too. Taking the timer's word for the time
        # keeps an early one from spinning until the clock agrees.
        self._now_s = max(self._now_s, self._due_s)
        self._due_s, self._timer = math.inf, None
        self._advance(self._now())
        self._arm()

    def _advance(self, now: float) -> None:
        self._hear(now)
        if self.moved is not None:
            self.moved()

    def _hear(self, now: float) -> None:
        for event in self._replica.advance(now):
            live = self._live.get(event.job.job_id)
            if live is not None:
                self._heard(live, event)

    def _heard(self, live: Live, event: Event) -> None:
        if event.kind == "first_token":
            self._first(live, event.at_s)
        elif event.kind == "token":
            live.tokens += 1
            self.stats.token(stream=live.stream, gap_s=event.at_s - live.last_s)
            live.last_s = event.at_s
            if live.stream:
                live.wake()
        elif event.kind == "finished":
            self._finished(live, event.at_s)
        else:
            # The limits of ``Completions`` refuse what can never fit, so this is a fault here.
            self._end(live, "died")

    def _first(self, live: Live, at_s: float) -> None:
        live.tokens = 1
        live.first_s = live.last_s = at_s
        self.stats.first_token(
            stream=live.stream,
            ttft_s=at_s - live.submitted_s,
            prompt=live.job.prompt_tokens,
            cached=live.job.cached_tokens,
        )
        if live.stream:
            live.wake()

    def _finished(self, live: Live, at_s: float) -> None:
        live.tokens = live.job.output_tokens
        self.stats.finish(
            stream=live.stream,
            reason=live.finish,
            e2e_s=at_s - live.submitted_s,
            decode_s=at_s - live.first_s,
            tokens=live.tokens,
        )
        self._end(live, "finished")

    def _end(self, live: Live, ending: Ending) -> None:
        del self._live[live.job.job_id]
        live.ending = ending
        live.wake()
