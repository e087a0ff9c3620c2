"""The less loaded of two drawn at random (Mitzenmacher 2001; Ray Serve's default)."""

from __future__ import annotations

from collections.abc import Sequence

from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.context import PolicyContext


class PowerOfTwo:
    """Two different candidates, fewer in flight wins, the first drawn on a tie."""

    def __init__(self, context: PolicyContext) -> None:
        self._rng = context.rng

    def choose(
        self,
        request: Request,  # noqa: ARG002
        candidates: Sequence[BackendView],
        now: float,  # noqa: ARG002
    ) -> BackendView | None:
        """The better of two."""
        if len(candidates) == 1:
            return candidates[0]
        first, second = self._rng.sample(range(len(candidates)), 2)
        one, other = candidates[first], candidates[second]
        return one if one.in_flight <= other.in_flight else other
