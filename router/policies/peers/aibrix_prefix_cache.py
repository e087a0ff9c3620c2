"""AIBrix ``prefix-cache``: best match among the pods that are not busier than most.

If ``max - min > 8`` in flight, only the least busy; among the matched, by match then load, the
first with ``in flight <= mean + 1 standard deviation``; else least request. (AIBrix
``pkg/plugins/gateway/algorithms/prefix_cache.go``.)
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, pstdev

from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.choosing import least
from router.policies.context import PolicyContext
from router.policies.prefix_index import HeedsHints, PrefixIndex

IMBALANCE = 8


class AibrixPrefixCache(HeedsHints):
    """Match first, within one standard deviation of the mean load."""

    def __init__(self, context: PolicyContext) -> None:
        self._rng = context.rng
        self._index = PrefixIndex()

    def choose(
        self,
        request: Request,
        candidates: Sequence[BackendView],
        now: float,  # noqa: ARG002
    ) -> BackendView | None:
        """By prefix, or by count."""
        chosen = self._matched(request, candidates)
        if chosen is None:
            chosen = least(candidates, lambda view: view.in_flight, self._rng)
        self._index.insert(
            chosen.spec.name,
            request.prefix_hashes,
            request.prefix_block_tokens,
            chosen.kv_capacity_tokens,
        )
        return chosen

    def lost(self, backend: str) -> None:
        """The backend left, or fell ill: its cache is gone, and so is what is known of it."""
        self._index.forget(backend)

    def _matched(self, request: Request, candidates: Sequence[BackendView]) -> BackendView | None:
        counts = [view.in_flight for view in candidates]
        if max(counts) - min(counts) > IMBALANCE:
            return None
        limit = fmean(counts) + pstdev(counts)
        hashes, size = request.prefix_hashes, request.prefix_block_tokens
        matches = [
            (-self._index.matched_tokens(view.spec.name, hashes, size), view.in_flight, view.index)
            for view in candidates
        ]
        for (matched, load, _), view in sorted(
            zip(matches, candidates, strict=True), key=lambda pair: pair[0]
        ):
            if matched < 0 and load <= limit:
                return view
        return None
