"""Recent prefix-cache hit ratio, and restarts, from lifetime counters."""

from __future__ import annotations

from telemetry.engine_metrics import Reading, ratio

HALF_LIFE_S = 60.0


class HitWindow:
    """Turns an engine's lifetime counters into a ratio over about the last minute.

    The lifetime ratio of an engine that has run for a week says nothing about today's traffic.
    """

    def __init__(self) -> None:
        self._last: Reading | None = None
        self._hits = 0.0
        self._queries = 0.0

    def update(self, reading: Reading) -> tuple[float | None, bool]:
        """Take note of one scrape.

        Returns:
            the ratio to use now (the lifetime's until two scrapes show traffic, the engine's
            own if it has no counters), and whether the engine has restarted in between.
        """
        last, self._last = self._last, reading
        if last is None:
            return reading.signals.prefix_hit_ratio, False
        if restarted(last, reading):
            self._hits = self._queries = 0.0
            return reading.signals.prefix_hit_ratio, True
        if _both(last) and _both(reading):
            self._add(last, reading)
        recent = ratio(self._hits, self._queries)
        return (reading.signals.prefix_hit_ratio if recent is None else recent), False

    def _add(self, last: Reading, reading: Reading) -> None:
        elapsed_s = max(0.0, reading.signals.observed_s - last.signals.observed_s)
        kept = 0.5 ** (elapsed_s / HALF_LIFE_S)
        hits = (reading.prefix_hits or 0.0) - (last.prefix_hits or 0.0)
        queries = (reading.prefix_queries or 0.0) - (last.prefix_queries or 0.0)
        if queries > 0:
            # Gauges of one engine are read a moment apart: hits may run ahead of look-ups.
            self._hits = self._hits * kept + min(hits, queries)
            self._queries = self._queries * kept + queries


def restarted(last: Reading, reading: Reading) -> bool:
    """Whether a counter went backwards or the process has another start time."""
    if _grew(last.started_s, reading.started_s):
        return True
    return (
        _grew(reading.prefix_queries, last.prefix_queries)
        or _grew(reading.prefix_hits, last.prefix_hits)
        or _grew(reading.signals.preemptions, last.signals.preemptions)
    )


def _grew(before: float | None, after: float | None) -> bool:
    return before is not None and after is not None and after > before + 0.5


def _both(reading: Reading) -> bool:
    return reading.prefix_hits is not None and reading.prefix_queries is not None
