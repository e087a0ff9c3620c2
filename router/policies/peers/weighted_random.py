"""LiteLLM ``simple-shuffle``: at random, in proportion to a weight.

The only common way users encode GPU speed today. The weights here are the believed speeds, which
is the best an operator can set.
"""

from __future__ import annotations

from collections.abc import Sequence

from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.context import PolicyContext
from router.policies.weighted_least_request import typical_request_s


class WeightedRandom:
    """Probability proportional to requests per second of the backend."""

    def __init__(self, context: PolicyContext) -> None:
        self._rng = context.rng

    def choose(
        self,
        request: Request,  # noqa: ARG002
        candidates: Sequence[BackendView],
        now: float,  # noqa: ARG002
    ) -> BackendView | None:
        """One drawn by weight."""
        weights = [1.0 / typical_request_s(view) for view in candidates]
        return self._rng.choices(candidates, weights)[0]
