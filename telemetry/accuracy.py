"""Predicted against actual, per backend: is the belief biased, how far off is it, does it know?

Ratios actual/predicted are kept over a sliding window. ``bias`` is their geometric mean (1.2:
things take 20% longer than believed), the errors are percentiles of how far off a prediction is,
and ``coverage`` is prequential: the share of outcomes that fell into the 90% band which the
earlier ones drew. Far from 0.9, the past does not tell the future and the tail is unknown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from router.domain.outcome import Outcome
from telemetry.sliding import SlidingWindow

Figure = Literal["ttft", "tpot", "e2e"]
FIGURES: tuple[Figure, ...] = ("ttft", "tpot", "e2e")
BAND = (0.05, 0.95)
BAND_FROM = 20
"""Ratios that must be known before a band is drawn."""

REDRAW = 64
"""Ratios between two drawings of the band: it moves slowly and costs a merge."""

MOST_AT_ONCE = 50
"""Backends reported anew in one call: some 10 ms."""


@dataclass(frozen=True, slots=True)
class AccuracyReport:
    """One predicted figure of one backend over the window.

    Attributes:
        count: predictions that came true or not.
        bias: geometric mean of actual over predicted.
        p50_error, p95_error: relative error, ``|actual / predicted - 1|``.
        coverage: share within the 90% band drawn beforehand; ``None`` while there is none.
    """

    count: int
    bias: float
    p50_error: float
    p95_error: float
    coverage: float | None


def _error(ratio: float) -> float:
    return abs(ratio - 1.0)


class _Track:
    """One figure of one backend."""

    def __init__(self, window_s: float) -> None:
        self.ratios = SlidingWindow(window_s)
        self._band: tuple[float, float] | None = None
        self._seen = 0

    def compare(self, actual: float, predicted: float, now: float) -> None:
        """Take one pair; what is not positive and finite is left out."""
        if not (0.0 < actual < math.inf and 0.0 < predicted < math.inf):
            return
        ratio = min(max(actual / predicted, 1e-5), 1e5)
        band = self._band
        self.ratios.add(ratio, now, None if band is None else band[0] <= ratio <= band[1])
        self._seen += 1
        if self._seen == BAND_FROM or self._seen % REDRAW == 0:
            low, high = self.ratios.quantiles(BAND, now)
            if low is not None and high is not None:
                self._band = (low, high)

    def report(self, now: float) -> AccuracyReport | None:
        bias = self.ratios.geometric_mean(now)
        p50, p95 = self.ratios.quantiles_of(_error, (0.5, 0.95), now)
        if bias is None or p50 is None or p95 is None:
            return None
        return AccuracyReport(
            count=self.ratios.count(now),
            bias=bias,
            p50_error=p50,
            p95_error=p95,
            coverage=self.ratios.attainment(now),
        )


@dataclass
class Accuracy:
    """An ``Observer`` that compares each completed request with what was believed of it."""

    window_s: float = 600.0
    _tracks: dict[str, tuple[_Track, _Track, _Track]] = field(default_factory=dict, init=False)
    _told: dict[str, dict[Figure, AccuracyReport]] = field(default_factory=dict, init=False)
    _told_s: dict[str, float] = field(default_factory=dict, init=False)

    def observe(self, outcome: Outcome) -> None:
        """Take note of one finished attempt; predictions of zero say nothing and are skipped."""
        first_s = outcome.first_token_s
        if outcome.status != "completed" or first_s is None:
            return
        tracks = self._tracks.get(outcome.backend)
        if tracks is None:
            window_s = self.window_s
            tracks = (_Track(window_s), _Track(window_s), _Track(window_s))
            self._tracks[outcome.backend] = tracks
        arrival_s, now, later = outcome.arrival_s, outcome.finished_s, outcome.output_tokens - 1
        ttft_s, tpot_s = outcome.predicted_ttft_s, outcome.predicted_tpot_s
        tracks[0].compare(first_s - arrival_s, ttft_s, now)
        if later > 0:
            tracks[1].compare((now - first_s) / later, tpot_s, now)
        expected = max(0.0, outcome.predicted_output_tokens - 1.0)
        tracks[2].compare(now - arrival_s, ttft_s + expected * tpot_s, now)

    def report(self, now: float) -> dict[str, dict[Figure, AccuracyReport]]:
        """By backend and figure; of a large fleet some backends' are from an earlier call.

        A report merges a window, which for a thousand backends would hold everything up.
        """
        old = [name for name in self._tracks if self._told_s.get(name) != now]
        if len(old) > MOST_AT_ONCE:
            old = sorted(old, key=lambda name: self._told_s.get(name, -math.inf))[:MOST_AT_ONCE]
        for backend in old:
            tracks = zip(FIGURES, self._tracks[backend], strict=True)
            reports = {figure: track.report(now) for figure, track in tracks}
            self._told[backend] = {f: r for f, r in reports.items() if r is not None}
            self._told_s[backend] = now
        return {name: told for name, told in self._told.items() if told}

    def forget(self, backend: str) -> None:
        """Drop a backend that left."""
        for kept in (self._tracks, self._told, self._told_s):
            kept.pop(backend, None)
