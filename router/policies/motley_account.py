"""Motley's scores, told: the same pain as ``motley.py`` computes, split into its terms."""

from __future__ import annotations

from router.domain.explanation import Score
from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.lane import Lane, Weights
from router.policies.tail_scale import TailScale


def score_of(  # noqa: PLR0917
    view: BackendView,
    request: Request,
    cached: int,
    share: float,
    scale: TailScale,
    weights: Weights,
    backlog_limit_s: float,
    now: float,
) -> Score:
    """The pain of one request on one backend, from a lane made for the purpose.

    Args:
        view: the backend.
        request: with its forecast.
        cached: prompt tokens that it probably has cached.
        share: prefill share of the backend.
        scale: recent tails.
        weights: of the terms.
        backlog_limit_s: a backlog beyond it means busy.
        now: the time.
    """
    lane = Lane(view)
    lane.refresh()
    backlog_s = max(lane.backlog_ends_s - now, 0.0)
    output = max(request.forecast.mean_tokens, 1.0)
    waited_s = now - request.arrival_s + backlog_s

    def pain(ttft: float, externality: float, price: float) -> float:
        parts = Weights(ttft, externality, price)
        return lane.pain(request.prompt_tokens, cached, output, waited_s, share, scale, parts)

    bare = pain(0.0, 0.0, 0.0)
    terms = {
        "e2e": bare,
        "ttft": pain(weights.ttft, 0.0, 0.0) - bare,
        "externality": pain(0.0, weights.externality, 0.0) - bare,
        "price": pain(0.0, 0.0, weights.price) - bare,
    }
    note = ""
    if lane.room_tokens < request.prompt_tokens:
        note = "has no KV room or no free sequence for it"
    elif backlog_s > backlog_limit_s:
        note = f"busy: {backlog_s:.2g} s of prefill before it"
    return Score(sum(terms.values()), cached, terms, note)
