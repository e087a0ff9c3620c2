"""Uniformly at random: the floor under every comparison."""

from __future__ import annotations

from collections.abc import Sequence

from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.context import PolicyContext


class RandomChoice:
    """Every candidate is as good as any other."""

    def __init__(self, context: PolicyContext) -> None:
        self._rng = context.rng

    def choose(
        self,
        request: Request,  # noqa: ARG002
        candidates: Sequence[BackendView],
        now: float,  # noqa: ARG002
    ) -> BackendView | None:
        """One of them."""
        return candidates[int(self._rng.random() * len(candidates))]
