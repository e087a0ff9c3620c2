"""GoodServe-like just-enough: the weakest backend predicted to meet the request's SLO.

Keeps fast GPUs free for those who need them; if nobody can meet the SLO, the lowest predicted
latency. (GoodServe, arXiv 2605.16867, without its migration.)
"""

from __future__ import annotations

from collections.abc import Sequence

from router.domain.request import Request
from router.domain.slo import Slo
from router.domain.state import BackendView
from router.perf.estimate import tpot_s, ttft_s
from router.policies.choosing import least
from router.policies.context import PolicyContext
from router.policies.weighted_least_request import typical_request_s

NO_TARGETS = Slo("none")


class GoodserveJustEnough:
    """Slowest hardware first, as long as the prediction keeps the SLO."""

    def __init__(self, context: PolicyContext) -> None:
        self._rng = context.rng
        self._slos = context.slos

    def choose(
        self, request: Request, candidates: Sequence[BackendView], now: float
    ) -> BackendView | None:
        """Just enough, or the best there is."""
        slo = self._slos.get(request.slo_class, NO_TARGETS)
        enough = [view for view in candidates if meets(view, request, slo, now)]
        if enough:
            return least(enough, lambda view: -typical_request_s(view), self._rng)
        return least(candidates, lambda view: predicted_e2e_s(view, request, now), self._rng)


def predicted_e2e_s(view: BackendView, request: Request, now: float) -> float:
    """Predicted seconds from now to the last token."""
    output = request.forecast.mean_tokens
    decode_s = output * tpot_s(view, request.prompt_tokens, output)
    return ttft_s(view, request.prompt_tokens, now) + decode_s


def meets(view: BackendView, request: Request, slo: Slo, now: float) -> bool:
    """Whether the request is predicted to keep its targets there."""
    prompt, output = request.prompt_tokens, request.forecast.mean_tokens
    waited_s = now - request.arrival_s
    ttft = waited_s + ttft_s(view, prompt, now)
    tpot = tpot_s(view, prompt, output)
    return slo.met(ttft_s=ttft, tpot_s=tpot, e2e_s=ttft + output * tpot)
