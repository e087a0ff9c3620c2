"""Least requests per unit of speed: nginx ``least_conn`` with the weights set right.

The weight is the believed decode speed of the backend's hardware at a typical batch, so this is
what a careful operator with a stop-watch gets. The strongest simple rival.
"""

from __future__ import annotations

from collections.abc import Sequence

from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.choosing import least
from router.policies.context import PolicyContext

TYPICAL_PROMPT_TOKENS = 1000
TYPICAL_OUTPUT_TOKENS = 200
TYPICAL_BATCH = 16


class WeightedLeastRequest:
    """Argmin of ``(in_flight + 1) * seconds per typical request``."""

    def __init__(self, context: PolicyContext) -> None:
        self._rng = context.rng

    def choose(
        self,
        request: Request,  # noqa: ARG002
        candidates: Sequence[BackendView],
        now: float,  # noqa: ARG002
    ) -> BackendView | None:
        """The one with the least weighted count."""
        return least(candidates, _weighted, self._rng)


def _weighted(view: BackendView) -> float:
    return (view.in_flight + 1) * typical_request_s(view)


def typical_request_s(view: BackendView) -> float:
    """Engine-seconds of a typical request (1000 in, 200 out, batch 16) on this backend."""
    cost = view.cost
    decode_s = cost.iteration_s(0, TYPICAL_BATCH, TYPICAL_BATCH * TYPICAL_PROMPT_TOKENS)
    return cost.prefill_s * TYPICAL_PROMPT_TOKENS + TYPICAL_OUTPUT_TOKENS * decode_s / TYPICAL_BATCH
