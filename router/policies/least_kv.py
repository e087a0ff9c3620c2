"""Lowest KV-cache utilization, as scraped; router-side expectation where nothing was scraped."""

from __future__ import annotations

from collections.abc import Sequence

from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.choosing import least
from router.policies.context import PolicyContext


class LeastKv:
    """Argmin of KV usage, ties at random. Stale by one scrape interval, as in the peers."""

    def __init__(self, context: PolicyContext) -> None:
        self._rng = context.rng

    def choose(
        self,
        request: Request,  # noqa: ARG002
        candidates: Sequence[BackendView],
        now: float,  # noqa: ARG002
    ) -> BackendView | None:
        """The emptiest one."""
        return least(candidates, _kv_usage, self._rng)


def _kv_usage(view: BackendView) -> float:
    if view.signals is not None and view.signals.kv_usage is not None:
        return view.signals.kv_usage
    return view.context_tokens / view.kv_capacity_tokens
