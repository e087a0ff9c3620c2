"""LMetric in seconds: each factor divided by the backend's own speed.

``(pending + own prompt) * prefill_s * iteration_s(batch + 1) * (batch + 1)``. On identical GPUs it
is LMetric with an extra iteration-time factor.
"""

from __future__ import annotations

from collections.abc import Sequence

from router.domain.request import Request
from router.domain.state import BackendView
from router.perf.estimate import decode_iteration_s
from router.policies.choosing import least
from router.policies.context import PolicyContext


class LMetricNormalized:
    """Argmin of the product in seconds, ties at random."""

    def __init__(self, context: PolicyContext) -> None:
        self._rng = context.rng

    def choose(
        self,
        request: Request,
        candidates: Sequence[BackendView],
        now: float,  # noqa: ARG002
    ) -> BackendView | None:
        """The one with the least product."""
        prompt = request.prompt_tokens

        def score(view: BackendView) -> float:
            prefill_s = (view.pending_prefill_tokens + prompt) * view.cost.prefill_s
            return prefill_s * decode_iteration_s(view, 1, prompt) * (view.in_flight + 1)

        return least(candidates, score, self._rng)
