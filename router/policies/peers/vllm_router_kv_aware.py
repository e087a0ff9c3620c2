"""vllm-router ``kv_aware``: uncached prefill tokens times requests, LMetric with prefix credit.

``(new prefill tokens + active prefill tokens) * (active requests + 1)``, device tier only.
(vllm-router 0.1.17.)
"""

from __future__ import annotations

from collections.abc import Sequence

from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.choosing import least
from router.policies.context import PolicyContext
from router.policies.prefix_index import HeedsHints, PrefixIndex


class VllmRouterKvAware(HeedsHints):
    """Argmin of the product, ties at random."""

    def __init__(self, context: PolicyContext) -> None:
        self._rng = context.rng
        self._index = PrefixIndex()

    def choose(
        self,
        request: Request,
        candidates: Sequence[BackendView],
        now: float,  # noqa: ARG002
    ) -> BackendView | None:
        """The cheapest one."""
        hashes, size = request.prefix_hashes, request.prefix_block_tokens

        def score(view: BackendView) -> float:
            cached = self._index.matched_tokens(view.spec.name, hashes, size)
            new_tokens = max(request.prompt_tokens - cached, 1)
            return (new_tokens + view.pending_prefill_tokens) * (view.in_flight + 1)

        chosen = least(candidates, score, self._rng)
        self._index.insert(chosen.spec.name, hashes, size, chosen.kv_capacity_tokens)
        return chosen

    def lost(self, backend: str) -> None:
        """The backend left, or fell ill: its cache is gone, and so is what is known of it."""
        self._index.forget(backend)
