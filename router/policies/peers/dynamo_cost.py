"""NVIDIA Dynamo's KV router: prefill blocks to compute plus decode blocks held.

``max(active prefill + incoming - cached, 0) + decode blocks``, in blocks of 16 tokens, ties at
random, temperature 0. A T4 block counts as an A100 block. (dynamo ``lib/kv-router``.)
"""

from __future__ import annotations

from collections.abc import Sequence

from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.choosing import least
from router.policies.context import PolicyContext
from router.policies.prefix_index import HeedsHints, PrefixIndex

BLOCK_TOKENS = 16


class DynamoCost(HeedsHints):
    """Argmin of blocks."""

    def __init__(self, context: PolicyContext) -> None:
        self._rng = context.rng
        self._index = PrefixIndex()

    def choose(
        self,
        request: Request,
        candidates: Sequence[BackendView],
        now: float,  # noqa: ARG002
    ) -> BackendView | None:
        """The fewest blocks."""
        hashes, size = request.prefix_hashes, request.prefix_block_tokens

        def blocks(view: BackendView) -> float:
            cached = self._index.matched_tokens(view.spec.name, hashes, size)
            prefill = max(view.pending_prefill_tokens + request.prompt_tokens - cached, 0)
            return (prefill + view.context_tokens + request.prompt_tokens) / BLOCK_TOKENS

        chosen = least(candidates, blocks, self._rng)
        self._index.insert(chosen.spec.name, hashes, size, chosen.kv_capacity_tokens)
        return chosen

    def lost(self, backend: str) -> None:
        """The backend left, or fell ill: its cache is gone, and so is what is known of it."""
        self._index.forget(backend)
