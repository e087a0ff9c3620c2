"""SGLang router ``cache_aware`` (its default): affinity unless the counts are far apart.

Defaults of the command line: cache_threshold 0.3, balance_abs 64, balance_rel 1.5. The tree here
is the block-hash index; a prompt without hashes matches nothing and goes to the least loaded.
(sgl-model-gateway ``policies/cache_aware.rs``.)
"""

from __future__ import annotations

from collections.abc import Sequence

from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.choosing import least
from router.policies.context import PolicyContext
from router.policies.prefix_index import HeedsHints, PrefixIndex

MAX_TREE_TOKENS = 2**26


class SglangCacheAware(HeedsHints):
    """Longest match above the threshold, else least in flight."""

    forgets = False

    def __init__(self, context: PolicyContext) -> None:
        self._rng = context.rng
        self._index = PrefixIndex(MAX_TREE_TOKENS)
        self._cache_threshold = context.param("cache_threshold", 0.3)
        self._balance_abs = context.param("balance_abs", 64)
        self._balance_rel = context.param("balance_rel", 1.5)

    def choose(
        self,
        request: Request,
        candidates: Sequence[BackendView],
        now: float,  # noqa: ARG002
    ) -> BackendView | None:
        """By affinity, or by count."""
        chosen = self._by_affinity(request, candidates)
        if chosen is None:
            chosen = least(candidates, _in_flight, self._rng)
        self._index.insert(chosen.spec.name, request.prefix_hashes, request.prefix_block_tokens)
        return chosen

    def lost(self, backend: str) -> None:
        """The backend left, or fell ill: its cache is gone, and so is what is known of it."""
        self._index.forget(backend)

    def _by_affinity(
        self, request: Request, candidates: Sequence[BackendView]
    ) -> BackendView | None:
        counts = [view.in_flight for view in candidates]
        most, fewest = max(counts), min(counts)
        if most - fewest > self._balance_abs and most > self._balance_rel * fewest:
            return None
        hashes, size = request.prefix_hashes, request.prefix_block_tokens
        matched, _, best = max(
            (self._index.matched_tokens(view.spec.name, hashes, size), -view.index, view)
            for view in candidates
        )
        return best if matched > self._cache_threshold * request.prompt_tokens else None


def _in_flight(view: BackendView) -> float:
    return view.in_flight
