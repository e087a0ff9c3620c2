"""Looks on while a replay runs: samples, progress, and an end where nothing happens any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from simulator.processes import EngineProcess, SimClock
from simulator.results import Records, Status, Timeline

Progress = Callable[[int, int], object]

_SAMPLES = 300
_WATCH_S = 60.0
_REPORTS = 200


class Watched(Protocol):
    """The replay, as far as it is looked at."""

    records: Records
    timeline: Timeline
    engines: list[EngineProcess]

    @property
    def over(self) -> bool:
        """Whether nothing can happen any more but what is on the wire."""

    def lose(self, i: int, now: float, reason: str) -> None:
        """End a request as failed."""


class Onlooker:
    """Of one replay.

    Args:
        replay: its timeline is written, and what can never finish is given up.
        progress: told (requests settled, requests) now and then.
    """

    def __init__(self, replay: Watched, progress: Progress | None) -> None:
        self._replay, self._progress = replay, progress
        self._count = len(replay.records)
        self._report_every = max(1, self._count // _REPORTS)
        self._settled = self._idle_watches = 0

    def start(self, clock: SimClock, span_s: float) -> None:
        """Look for as long as the clock runs; ``span_s`` is that of the trace."""
        clock.every(max(1.0, span_s / _SAMPLES), self._sample)
        clock.every(_WATCH_S, self._watch)

    def settled(self) -> bool:
        """One more request has ended; whether that was the last."""
        self._settled += 1
        if self._progress is not None and self._settled % self._report_every == 0:
            self._progress(self._settled, self._count)
        return self._settled == self._count

    def _sample(self, now: float) -> None:
        timeline = self._replay.timeline
        signals = [engine.snapshot(now) for engine in self._replay.engines]
        timeline.at_s.append(now)
        timeline.running.append([s.running or 0 for s in signals])
        timeline.waiting.append([s.waiting or 0 for s in signals])
        timeline.kv_usage.append([s.kv_usage or 0.0 for s in signals])

    def _watch(self, now: float) -> None:
        """Never hang: when nothing can happen any more, what is left has failed."""
        if not self._replay.over:
            self._idle_watches = 0
            return
        self._idle_watches += 1
        if self._idle_watches > 1:  # twice, so that nothing is on the wire either
            status = self._replay.records.status
            for i in range(self._count):
                if status[i] == Status.PENDING:
                    self._replay.lose(i, now, "never_finished")
