"""What rounds say together: a median, the ratio to another of the same rounds, and how sure.

Noise on a machine comes and goes within minutes, so it is in both of a pair that was measured one
after the other, and in the ratio it is not. The interval is what the ratio would be in other rounds
like these: rounds are drawn anew from those there are (bootstrap), pairs kept together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Round = float | Sequence[float]
"""A figure, or the latencies of a round."""
Rounds = Sequence[Round]
Together = Callable[[Rounds], float]
"""One figure of many rounds."""

RESAMPLES = 2_000
LOW, HIGH = 2.5, 97.5


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times another's figure.

    Attributes:
        value: of all rounds.
        low, high: 95 % of redrawn rounds are within.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "-"
        digits = 2 if self.high < 9.95 else 1 if self.high < 99.5 else 0
        return f"{self.value:.{digits}f}, {self.low:.{digits}f}-{self.high:.{digits}f}"


def middle(rounds: Rounds) -> float:
    """Median of the rounds' figures."""
    return float(np.median([figure for figure in rounds if isinstance(figure, float)]))


def percentile_of(percent: float) -> Together:
    """Of the latencies of all rounds in one heap: one round alone has too few in its tail."""

    def together(rounds: Rounds) -> float:
        return float(np.percentile(np.concatenate([np.asarray(r) for r in rounds]), percent))

    return together


def ratio(ours: Rounds, theirs: Rounds, together: Together, *, seed: int = 0) -> Ratio:
    """Compare two gateways, round by round.

    Args:
        ours, theirs: of the same rounds, in the same order.
        together: one figure of many rounds; of ``middle`` the ratios are taken within the rounds.
        seed: of the redrawing.
    """
    count = min(len(ours), len(theirs))
    if together is middle:
        within = [a / b for a, b in zip(ours, theirs, strict=False)]  # type: ignore[operator]

        def of(chosen: Sequence[int]) -> float:
            return float(np.median([within[n] for n in chosen]))
    else:

        def of(chosen: Sequence[int]) -> float:
            return together([ours[n] for n in chosen]) / together([theirs[n] for n in chosen])

    rng = np.random.default_rng(seed)
    redrawn = [of(drawn.tolist()) for drawn in rng.integers(count, size=(RESAMPLES, count))]
    low, high = np.percentile(redrawn, (LOW, HIGH))
    return Ratio(of(range(count)), float(low), float(high))
