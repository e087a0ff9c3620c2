"""Fewest requests in flight: the peers' default, blind to speed."""

from __future__ import annotations

from collections.abc import Sequence

from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.context import PolicyContext


class LeastRequest:
    """Argmin of the router's own in-flight counts, ties at random."""

    def __init__(self, context: PolicyContext) -> None:
        self._rng = context.rng

    def choose(
        self,
        request: Request,  # noqa: ARG002
        candidates: Sequence[BackendView],
        now: float,  # noqa: ARG002
    ) -> BackendView | None:
        """The one with the fewest."""
        fewest = min([view.in_flight for view in candidates])
        tied = [view for view in candidates if view.in_flight == fewest]
        return tied[0] if len(tied) == 1 else tied[int(self._rng.random() * len(tied))]
