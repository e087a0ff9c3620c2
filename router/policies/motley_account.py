"""Motley's scores, told: the same pain as ``motley.py`` computes, split into its terms."""

from __future__ import annotations

from router.domain.explanation import Score
from router.domain.request import Request
from router.policies.ask import Ask, Weights
from router.policies.lane import Lane
from router.policies.tail_scale import TailScale


def score_of(  # noqa: PLR0917
    lane: Lane,
    request: Request,
    cached: int,
    scale: TailScale,
    weights: Weights,
    backlog_limit_s: float,
    now: float,
    urgency: float = 1.0,
) -> Score:
    """The pain of one request on one backend.

    Args:
        lane: the backend.
        request: with its forecast.
        cached: prompt tokens that it probably has cached.
        scale: recent tails.
        weights: of the terms.
        backlog_limit_s: a backlog beyond it means busy.
        now: the time.
        urgency: how much a second of the request counts.
    """
    wait_s, waited_s = lane.wait_s(now), now - request.arrival_s

    def pain(
        ttft: float = 0.0, inflicted: float = 0.0, price: float = 0.0, over: float = 0.0
    ) -> float:
        parts = Weights(ttft, inflicted, price, weights.tail, over)
        prompt, forecast = request.prompt_tokens, request.forecast
        ask = Ask(prompt, forecast, waited_s, now, scale, parts, urgency)
        return lane.pain(ask, cached)

    bare = pain()
    terms = {
        "e2e": bare,
        "ttft": pain(ttft=weights.ttft) - bare,
        "overshoot": pain(over=weights.overshoot) - bare,
        "externality": pain(inflicted=weights.externality) - bare,
        "price": pain(price=weights.price) - bare,
    }
    note = ""
    if lane.room_tokens < request.prompt_tokens:
        note = "has no KV room or no free sequence for it"
    elif lane.is_busy(now, backlog_limit_s):
        late = "; it should have begun by now" if lane.late_from_s < now else ""
        note = f"busy: {wait_s:.2g} s of prefill before it{late}"
    return Score(sum(terms.values()), cached, terms, note)
