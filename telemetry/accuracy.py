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

REDRAW = 16
"""Ratios between two drawings of the band: it moves slowly and costs a merge."""


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


class _Track:
    """One figure of one backend."""

    def __init__(self, window_s: float) -> None:
        self.ratios = SlidingWindow(window_s)
        self.errors = SlidingWindow(window_s)
        self._band: tuple[float, float] | None = None
        self._seen = 0

    def add(self, ratio: float, now: float) -> None:
        if self._band is not None:
            self.ratios.judge(self._band[0] <= ratio <= self._band[1], now)
        self.ratios.add(ratio, now)
        self.errors.add(max(abs(ratio - 1.0), 1e-4), now)
        self._seen += 1
        if self._seen >= BAND_FROM and self._seen % REDRAW == 0:
            low, high = self.ratios.quantiles(BAND, now)
            if low is not None and high is not None:
                self._band = (low, high)

    def report(self, now: float) -> AccuracyReport | None:
        bias = self.ratios.geometric_mean(now)
        p50, p95 = self.errors.quantiles((0.5, 0.95), now)
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
    _tracks: dict[tuple[str, Figure], _Track] = field(default_factory=dict, init=False)

    def observe(self, outcome: Outcome) -> None:
        """Take note of one finished attempt; predictions of zero say nothing and are skipped."""
        if outcome.status != "completed" or outcome.first_token_s is None:
            return
        self._add(outcome, "ttft", outcome.ttft_s, outcome.predicted_ttft_s)
        self._add(outcome, "tpot", outcome.tpot_s, outcome.predicted_tpot_s)
        later = max(0.0, outcome.predicted_output_tokens - 1.0)
        predicted_s = outcome.predicted_ttft_s + later * outcome.predicted_tpot_s
        self._add(outcome, "e2e", outcome.e2e_s, predicted_s)

    def report(self, now: float) -> dict[str, dict[Figure, AccuracyReport]]:
        """By backend and figure."""
        found: dict[str, dict[Figure, AccuracyReport]] = {}
        for (backend, figure), track in self._tracks.items():
            report = track.report(now)
            if report is not None:
                found.setdefault(backend, {})[figure] = report
        return found

    def forget(self, backend: str) -> None:
        """Drop a backend that left."""
        for figure in FIGURES:
            self._tracks.pop((backend, figure), None)

    def _add(
        self, outcome: Outcome, figure: Figure, actual: float | None, predicted: float
    ) -> None:
        if actual is None or not (0.0 < actual < math.inf and 0.0 < predicted < math.inf):
            return
        key = (outcome.backend, figure)
        track = self._tracks.get(key)
        if track is None:
            track = self._tracks[key] = _Track(self.window_s)
        track.add(min(max(actual / predicted, 1e-5), 1e5), outcome.finished_s)
