"""Lowest KV-cache utilization: as scraped while that is fresh, by the router's own books after.

A scrape is believed in full when it is new and not at all when it is ``TRUSTED_S`` old; in between
the figure moves evenly to what the router itself has in flight there, which is always current.
"""

from __future__ import annotations

from collections.abc import Sequence

from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.choosing import least
from router.policies.context import PolicyContext

TRUSTED_S = 10.0
"""Of the same size as ``telemetry.stale_after_s``, when signals are forgotten altogether."""


class LeastKv:
    """Argmin of KV usage, ties at random."""

    def __init__(self, context: PolicyContext) -> None:
        self._rng = context.rng

    def choose(
        self,
        request: Request,  # noqa: ARG002
        candidates: Sequence[BackendView],
        now: float,
    ) -> BackendView | None:
        """The emptiest one."""
        return least(candidates, lambda view: kv_usage(view, now), self._rng)


def kv_usage(view: BackendView, now: float) -> float:
    """Believed share of the KV cache in use, shrunk to the router's own books with its age."""
    own = view.context_tokens / view.kv_capacity_tokens
    signals = view.signals
    if signals is None or signals.kv_usage is None:
        return own
    trust = max(0.0, 1.0 - max(0.0, now - signals.observed_s) / TRUSTED_S)
    return own + trust * (signals.kv_usage - own)
