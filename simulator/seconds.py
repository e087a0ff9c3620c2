"""Second attempts in a replay: two engines work for one request until one of them answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from router.dispatcher import Dispatcher
from simulator.processes import EngineProcess, SimClock, Verdict
from simulator.results import Records
from simulator.rows import Rows


class Owner(Protocol):
    """The replay, as far as second attempts go."""

    records: Records

    def router_of(self, i: int) -> Dispatcher:
        """The gateway replica that request ``i`` came to."""


class Seconds:
    """Sends second attempts, and breaks off whichever of two loses.

    Args:
        owner: has the books.
        clock: the virtual clock.
        rows: makes the jobs.
        engines: all of them, by index.
    """

    def __init__(
        self, owner: Owner, clock: SimClock, rows: Rows, engines: Sequence[EngineProcess]
    ) -> None:
        self._owner, self._clock, self._rows, self._engines = owner, clock, rows, engines
        self._engine_of = {engine.spec.name: engine for engine in engines}
        self._second: dict[int, EngineProcess] = {}

    def await_first_token(self, i: int) -> None:
        """A request was sent; if its first token is late, perhaps another engine should try."""
        due_s = self._owner.router_of(i).hedge_due_s(str(i))
        if due_s is not None:
            self._clock.call_at(due_s, partial(self._hedge, i, self._owner.records.attempts[i]))

    def answered(self, i: int, engine: EngineProcess, now: float) -> None:
        """One of two attempts has its first token; the other is broken off."""
        second, records = self._second.get(i), self._owner.records
        first = self._engines[records.backend[i]]
        if second is None or (engine is not first and engine is not second):
            return  # it has one only, or this is an attempt given up long ago
        del self._second[i]
        self._owner.router_of(i).win(str(i), engine.spec.name, now)
        loser = first if engine is second else second
        records.backend[i] = engine.index
        loser.cancel(str(i), now)

    def lost(self, i: int, engine: EngineProcess, now: float) -> bool:
        """An engine lost one of two attempts; ``False`` if it was the only one."""
        second = self._second.pop(i, None)
        if second is None:
            return False
        self._owner.router_of(i).withdraw(str(i), engine.spec.name, now)
        if engine is not second:
            self._owner.records.backend[i] = second.index
        return True

    def forget(self, i: int, now: float) -> None:
        """The request is over, or waits again: so is its second attempt."""
        second = self._second.pop(i, None)
        if second is not None:
            second.cancel(str(i), now)

    def _hedge(self, i: int, attempt: int, now: float) -> None:
        records = self._owner.records
        same = records.attempts[i] == attempt and records.backend[i] >= 0
        if not same or records.status[i] or not math.isnan(records.first_token_s[i]):
            return
        router = self._owner.router_of(i)
        decision = router.hedge(str(i), now)
        if decision is None:
            return
        engine = self._engine_of[decision.backend.name]
        verdict = engine.submit(self._rows.job(i, engine.longest_job_tokens), now + engine.delay_s)
        if verdict is Verdict.ACCEPTED:
            self._second[i] = engine
        else:
            busy = verdict is Verdict.BUSY
            router.withdraw(str(i), decision.backend.name, now, backpressure=busy)
