"""llm-d's default profile: queue scorer 2, KV-utilization scorer 2, prefix scorer 3.

queue: ``(max waiting - waiting) / (max - min)``; KV: ``1 - usage``; prefix: matched over total
blocks. Highest sum wins, ties shuffled. Signals every 50 ms. (llm-d-router
``config/loader/defaults.go``.)
"""

from __future__ import annotations

from collections.abc import Sequence

from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.choosing import least
from router.policies.context import PolicyContext
from router.policies.prefix_index import HeedsHints, PrefixIndex


class LlmDDefault(HeedsHints):
    """Argmax of the weighted scores, ties at random."""

    scrape_interval_s = 0.05

    def __init__(self, context: PolicyContext) -> None:
        self._rng = context.rng
        self._index = PrefixIndex()
        self._queue_weight = context.param("queue_weight", 2.0)
        self._kv_weight = context.param("kv_weight", 2.0)
        self._prefix_weight = context.param("prefix_weight", 3.0)

    def choose(
        self,
        request: Request,
        candidates: Sequence[BackendView],
        now: float,  # noqa: ARG002
    ) -> BackendView | None:
        """The highest scorer."""
        hashes, size = request.prefix_hashes, request.prefix_block_tokens
        waiting = [_waiting(view) for view in candidates]
        most, fewest = max(waiting), min(waiting)
        prompt = max(request.prompt_tokens, 1)

        def penalty(view: BackendView) -> float:
            queue = (most - _waiting(view)) / (most - fewest) if most > fewest else 1.0
            matched = self._index.matched_tokens(view.spec.name, hashes, size) / prompt
            return -(
                self._queue_weight * queue
                + self._kv_weight * (1.0 - _kv_usage(view))
                + self._prefix_weight * min(matched, 1.0)
            )

        chosen = least(candidates, penalty, self._rng)
        self._index.insert(chosen.spec.name, hashes, size, chosen.kv_capacity_tokens)
        return chosen

    def lost(self, backend: str) -> None:
        """The backend left, or fell ill: its cache is gone, and so is what is known of it."""
        self._index.forget(backend)


def _waiting(view: BackendView) -> int:
    return (view.signals.waiting or 0) if view.signals is not None else 0


def _kv_usage(view: BackendView) -> float:
    return (view.signals.kv_usage or 0.0) if view.signals is not None else 0.0
