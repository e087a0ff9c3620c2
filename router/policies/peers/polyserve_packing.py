"""PolyServe-like packing: the most loaded backend that is still predicted to meet the SLO.

Saves GPUs at the price of latency; if nobody can meet it, the lowest predicted latency.
(PolyServe, arXiv 2507.17769, without its dynamic bins.)
"""

from __future__ import annotations

from collections.abc import Sequence

from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.choosing import least
from router.policies.context import PolicyContext
from router.policies.peers.goodserve_just_enough import NO_TARGETS, meets, predicted_e2e_s


class PolyservePacking:
    """Fullest first, as long as the prediction keeps the SLO."""

    def __init__(self, context: PolicyContext) -> None:
        self._rng = context.rng
        self._slos = context.slos

    def choose(
        self, request: Request, candidates: Sequence[BackendView], now: float
    ) -> BackendView | None:
        """The fullest that will do, or the best there is."""
        slo = self._slos.get(request.slo_class, NO_TARGETS)
        fit = [view for view in candidates if meets(view, request, slo, now)]
        if fit:
            return least(
                fit, lambda view: -view.context_tokens / view.kv_capacity_tokens, self._rng
            )
        return least(candidates, lambda view: predicted_e2e_s(view, request, now), self._rng)
