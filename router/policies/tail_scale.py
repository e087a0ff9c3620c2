"""Recent mean squares of TTFT and E2E: what a second of each is worth here and now.

Dividing each latency by its own scale lets one policy weigh both on any trace, model and fleet.
"""

from __future__ import annotations

from router.domain.outcome import Outcome

MEMORY = 500
PRIOR_TTFT_S2 = 1.0
PRIOR_E2E_S2 = 100.0


class TailScale:
    """Running means of ``TTFT^2`` and ``E2E^2`` over about the last ``MEMORY`` completions.

    Attributes:
        ttft_s2: mean square of TTFT, in seconds squared.
        e2e_s2: mean square of E2E, in seconds squared.
    """

    __slots__ = ("_seen", "e2e_s2", "ttft_s2")

    def __init__(self) -> None:
        self._seen = 0
        self.ttft_s2 = PRIOR_TTFT_S2
        self.e2e_s2 = PRIOR_E2E_S2

    def observe(self, outcome: Outcome) -> None:
        """Take in one completion; anything else says nothing of latency."""
        ttft_s, e2e_s = outcome.ttft_s, outcome.e2e_s
        if outcome.status != "completed" or ttft_s is None or e2e_s <= 0.0:
            return
        self._seen += 1
        gain = 1.0 / min(self._seen, MEMORY)
        self.ttft_s2 += (max(ttft_s, 1e-3) ** 2 - self.ttft_s2) * gain
        self.e2e_s2 += (e2e_s * e2e_s - self.e2e_s2) * gain
