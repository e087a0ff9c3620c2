"""What a second of TTFT and of E2E is worth here and now, from what was delivered lately.

The aim is to make the product of both tails small, so a tenth off either counts the same. A tail
is measured by its power mean (the fourth for TTFT, the second for E2E), for which the worth of
one request is smooth::

    log ||T|| + log ||E||  changes by  T^4 / (4 N mean(T^4)) + E^2 / (2 N mean(E^2))  per request

with T and E in units of their 98th percentiles. There the mean of T^4 is about 0.13 and that of E^2
about 0.2, whatever the workload, and that is taken for granted: measured over the last few hundred,
while the percentiles move, they were off by a factor of three either way. Whoever weighs TTFT less
than that leans towards E2E; he has less reason to the more of E2E is TTFT, for a second of it is
then one off both. So ``worth`` grows with the one percentile over the other, up to 5 times, where
that is ``PART``: no more leaning than that takes back a ``ttft_weight`` of 0.2.
Nothing is tuned to a workload: any trace, model and fleet sets its own scales.

Until ``BEGIN_AT`` answers are over the tails are guesses, and generous ones. A guess of 1 s of TTFT
sent whoever came first to the slow cards, which are idle then, and the long answers among them were
the tail of E2E for the next minute; one of 3 s lets them wait for the fast ones as they fill.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Mapping

from router.domain.outcome import Outcome

QUANTILE = 0.98
GAIN = 0.1
MOMENT_GAIN = 0.003
PRIOR_TTFT_S = 3.0
PRIOR_E2E_S = 40.0
PRIOR_E2E_MOMENT = 0.2
LEAST_MOMENT = 0.01
WORTH = 0.5 * 0.2 / 0.13
PART = 0.25
MOST_TIMES = 5.0
MOST_E2E_MOMENT = 6.0
"""One outlier counts for at most 2.4 times the 98th percentile of E2E."""
TAIL_SLOPE = 3.5
BEGIN_AT = 10
BEGIN_UNTIL = 200
FLOOR_S = 1e-3
MOST_BEFORE_S = 3600.0
KNOWN = "counted_e2e_s"
"""In seconds as they count (``urgency.py``); under ``e2e_s`` plain ones were kept, which differ."""


class TailScale:
    """Running 98th percentiles of TTFT and E2E, and the power mean of E2E, in O(1) memory.

    Percentiles by stochastic approximation in the logarithm: up by ``GAIN * q`` on a value above
    the estimate, down by ``GAIN * (1 - q)`` on one below; they follow a change in a few hundred
    completions. The first two hundred are ranked exactly; after a restart theirs takes over step
    by step from the tail of E2E that was known before.

    Attributes:
        ttft_s: tail of TTFT, in seconds.
        e2e_s: tail of E2E, in seconds.
        worth: weight of ``(TTFT / ttft_s) ** 4`` against ``(E2E / e2e_s) ** 2``.
        overshoot: weight of the probability of an E2E beyond ``e2e_s`` against the same.
    """

    __slots__ = (
        "_before_s",
        "_e2e_moment",
        "_first",
        "e2e_s",
        "overshoot",
        "ttft_s",
        "worth",
    )

    def __init__(self) -> None:
        self.ttft_s = PRIOR_TTFT_S
        self.e2e_s = PRIOR_E2E_S
        self._first: tuple[list[float], list[float]] | None = ([], [])
        self._before_s: float | None = None
        self._e2e_moment = PRIOR_E2E_MOMENT
        self.worth = self._worth()
        self.overshoot = self._overshoot()

    def observe(self, outcome: Outcome, urgency: float = 1.0) -> None:
        """Take in one completion; anything else says nothing of latency.

        Args:
            outcome: of any class.
            urgency: how much a second of it counts; the tails are in seconds that count whole.
        """
        ttft_s = outcome.ttft_s
        if outcome.status != "completed" or ttft_s is None:
            return
        ttft_s, e2e_s = urgency * ttft_s, urgency * outcome.e2e_s
        if self._first is not None:
            self._begin(ttft_s, e2e_s)
        else:
            self.ttft_s = _stepped(self.ttft_s, ttft_s)
            self.e2e_s = _stepped(self.e2e_s, e2e_s)
        long = min((e2e_s / self.e2e_s) ** 2, MOST_E2E_MOMENT)
        self._e2e_moment += MOMENT_GAIN * (long - self._e2e_moment)
        self.worth = self._worth()
        self.overshoot = self._overshoot()

    def known(self) -> dict[str, float]:
        """What was learned, to be kept over a restart; empty while it is a guess.

        That is the tail of E2E alone. The first answers over are the short ones, whose E2E would
        be taken for the tail; their TTFT is like any other, and a tail of TTFT from heavier work
        would let everybody wait for hundreds of answers.
        """
        if self._before_s is None and self._first is not None and len(self._first[0]) < BEGIN_AT:
            return {}
        return {KNOWN: self.e2e_s, "e2e_moment": self._e2e_moment}

    def recall(self, known: Mapping[str, float]) -> None:
        """Begin with what was known before a restart, if it is that."""
        e2e_s, moment = known.get(KNOWN, 0.0), known.get("e2e_moment", 0.0)
        if not (0.0 < e2e_s < math.inf and 0.0 < moment < math.inf):
            return
        self.e2e_s = self._before_s = min(max(e2e_s, FLOOR_S), MOST_BEFORE_S)
        self._e2e_moment = min(moment, MOST_E2E_MOMENT)
        self.worth = self._worth()
        self.overshoot = self._overshoot()

    def _begin(self, ttft_s: float, e2e_s: float) -> None:
        """Of the first completions all are kept: steps from a guess would take hundreds more."""
        assert self._first is not None
        for known, value_s in zip(self._first, (ttft_s, e2e_s), strict=True):
            insort(known, value_s)
        count = len(self._first[0])
        if count >= BEGIN_AT:
            rank = int(QUANTILE * count)
            ttft_s, e2e_s = (max(known[rank], FLOOR_S) for known in self._first)
            if self._before_s is not None:
                e2e_s = self._before_s * (e2e_s / self._before_s) ** min(count / BEGIN_UNTIL, 1.0)
            self.ttft_s, self.e2e_s = ttft_s, e2e_s
        if count >= BEGIN_UNTIL:
            self._first = None

    def _overshoot(self) -> float:
        """Weight of the probability of an E2E beyond ``e2e_s``, in units of ``(E2E / e2e_s) ** 2``.

        ``log`` of the percentile changes by ``P / (N * x f(x))``, and at a percentile q of
        latencies ``x f(x)`` is about ``TAIL_SLOPE * (1 - q)``.
        """
        return 2.0 * max(self._e2e_moment, LEAST_MOMENT) / (TAIL_SLOPE * (1.0 - QUANTILE))

    def _worth(self) -> float:
        part = min(self.ttft_s / (PART * self.e2e_s), 1.0)
        return WORTH * (1.0 + (MOST_TIMES - 1.0) * part)


def _stepped(estimate_s: float, value_s: float) -> float:
    direction = QUANTILE if value_s > estimate_s else QUANTILE - 1.0
    return max(estimate_s * math.exp(GAIN * direction), FLOOR_S)
