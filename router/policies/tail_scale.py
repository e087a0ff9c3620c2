"""Recent tails of TTFT and E2E: what a second of each is worth here and now.

Dividing each latency by its own recent tail lets one policy weigh both on any trace, model and
fleet, with nothing to tune to a workload.
"""

from __future__ import annotations

import math

from router.domain.outcome import Outcome

QUANTILE = 0.98
GAIN = 0.1
PRIOR_TTFT_S = 1.0
PRIOR_E2E_S = 20.0
FLOOR_S = 1e-3


class TailScale:
    """Running 98th percentiles of TTFT and E2E, in O(1) memory.

    Stochastic approximation in the logarithm: up by ``GAIN * q`` on a value above the estimate,
    down by ``GAIN * (1 - q)`` on one below; it follows a change in a few hundred completions.

    Attributes:
        ttft_s: tail of TTFT, in seconds.
        e2e_s: tail of E2E, in seconds.
    """

    __slots__ = ("e2e_s", "ttft_s")

    def __init__(self) -> None:
        self.ttft_s = PRIOR_TTFT_S
        self.e2e_s = PRIOR_E2E_S

    def observe(self, outcome: Outcome) -> None:
        """Take in one completion; anything else says nothing of latency."""
        ttft_s = outcome.ttft_s
        if outcome.status != "completed" or ttft_s is None:
            return
        self.ttft_s = _stepped(self.ttft_s, ttft_s)
        self.e2e_s = _stepped(self.e2e_s, outcome.e2e_s)


def _stepped(estimate_s: float, value_s: float) -> float:
    direction = QUANTILE if value_s > estimate_s else QUANTILE - 1.0
    return max(estimate_s * math.exp(GAIN * direction), FLOOR_S)
