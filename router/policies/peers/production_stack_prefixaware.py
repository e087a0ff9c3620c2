"""production-stack ``prefixaware``: random among those that hold the longest prefix, no load term.

Its trie never forgets; without a match the lowest request rate over the last minute wins.
(production-stack ``routers/routing_logic.py``.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.choosing import least
from router.policies.context import PolicyContext
from router.policies.prefix_index import HeedsHints, PrefixIndex

WINDOW_S = 60.0


class ProductionStackPrefixaware(HeedsHints):
    """Longest match, whatever the load; else the lowest request rate."""

    forgets = False

    def __init__(self, context: PolicyContext) -> None:
        self._rng = context.rng
        self._index = PrefixIndex()
        self._sent: dict[str, deque[float]] = {}

    def choose(
        self, request: Request, candidates: Sequence[BackendView], now: float
    ) -> BackendView | None:
        """By prefix, or by request rate."""
        hashes, size = request.prefix_hashes, request.prefix_block_tokens
        matches = [self._index.matched_tokens(view.spec.name, hashes, size) for view in candidates]
        longest = max(matches)
        if longest > 0:
            holders = [v for v, m in zip(candidates, matches, strict=True) if m == longest]
            chosen = self._rng.choice(holders)
        else:
            chosen = least(candidates, lambda view: self._rate(view, now), self._rng)
        self._sent.setdefault(chosen.spec.name, deque()).append(now)
        self._index.insert(chosen.spec.name, hashes, size)
        return chosen

    def lost(self, backend: str) -> None:
        """The backend left, or fell ill: its cache is gone, and so is what is known of it."""
        self._index.forget(backend)
        self._sent.pop(backend, None)

    def _rate(self, view: BackendView, now: float) -> float:
        sent = self._sent.get(view.spec.name)
        while sent and sent[0] < now - WINDOW_S:
            sent.popleft()
        return len(sent) / WINDOW_S if sent else 0.0
