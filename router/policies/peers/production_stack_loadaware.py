"""production-stack ``loadaware``: prefix share minus relative load.

``matched / prompt - beta * (load - mean) / max(1, mean)``, beta = 1, load = in flight.
(production-stack pull request 1035.)
"""

from __future__ import annotations

from collections.abc import Sequence

from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.choosing import least
from router.policies.context import PolicyContext
from router.policies.prefix_index import HeedsHints, PrefixIndex


class ProductionStackLoadaware(HeedsHints):
    """Argmax of the score, ties at random."""

    forgets = False

    def __init__(self, context: PolicyContext) -> None:
        self._rng = context.rng
        self._beta = context.param("beta", 1.0)
        self._index = PrefixIndex()

    def choose(
        self,
        request: Request,
        candidates: Sequence[BackendView],
        now: float,  # noqa: ARG002
    ) -> BackendView | None:
        """The best balance of prefix and load."""
        hashes, size = request.prefix_hashes, request.prefix_block_tokens
        mean = sum(view.in_flight for view in candidates) / len(candidates)
        prompt = max(request.prompt_tokens, 1)

        def penalty(view: BackendView) -> float:
            share = self._index.matched_tokens(view.spec.name, hashes, size) / prompt
            return self._beta * (view.in_flight - mean) / max(1.0, mean) - share

        chosen = least(candidates, penalty, self._rng)
        self._index.insert(chosen.spec.name, hashes, size)
        return chosen

    def lost(self, backend: str) -> None:
        """The backend left, or fell ill: its cache is gone, and so is what is known of it."""
        self._index.forget(backend)
