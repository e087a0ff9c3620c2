"""LMetric: queued prefill tokens times batch size (OSDI'26, "Multiplication May Be All You Need").

Its authors aim at identical GPUs; the product does not know how fast each one is.
"""

from __future__ import annotations

from collections.abc import Sequence

from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.choosing import least
from router.policies.context import PolicyContext


class LMetric:
    """Argmin of ``(pending prefill + own prompt tokens) * (in flight + 1)``."""

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
            return (view.pending_prefill_tokens + prompt) * (view.in_flight + 1)

        return least(candidates, score, self._rng)
