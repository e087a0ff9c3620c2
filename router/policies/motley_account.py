"""Motley's scores, told: the same pain as ``motley.py`` computes, split into its terms."""

from __future__ import annotations

from router.domain.explanation import Score
from router.domain.request import Request
from router.policies.ask import Ask, Weights
from router.policies.lane import Lane
from router.policies.tail_scale import TailScale


class Account:
    """What the pain of one request is made of, wherever it goes.

    Args:
        request: with its forecast.
        scale: recent tails.
        weights: of the terms.
        now: the time.
        urgency: how much a second of the request counts.
    """

    def __init__(
        self, request: Request, scale: TailScale, weights: Weights, now: float, urgency: float
    ) -> None:
        prompt, forecast, waited_s = (
            request.prompt_tokens,
            request.forecast,
            now - request.arrival_s,
        )

        def ask(
            ttft: float = 0.0, inflicted: float = 0.0, price: float = 0.0, over: float = 0.0
        ) -> Ask:
            parts = Weights(ttft, inflicted, price, weights.tail, over)
            return Ask(prompt, forecast, waited_s, now, scale, parts, urgency)

        self._prompt, self._now = prompt, now
        self._bare = ask()
        self._terms = {
            "ttft": ask(ttft=weights.ttft) if weights.ttft else None,
            "overshoot": ask(over=weights.overshoot) if weights.overshoot else None,
            "externality": ask(inflicted=weights.externality) if weights.externality else None,
            "price": ask(price=weights.price) if weights.price else None,
        }

    def score(self, lane: Lane, cached: int, backlog_limit_s: float) -> Score:
        """The pain on one backend.

        Args:
            lane: the backend.
            cached: prompt tokens that it probably has cached.
            backlog_limit_s: a backlog beyond it means busy.
        """
        bare = lane.pain(self._bare, cached)
        terms = {"e2e": bare}
        for name, ask in self._terms.items():
            terms[name] = lane.pain(ask, cached) - bare if ask is not None else 0.0
        note, now = "", self._now
        if lane.room_tokens < self._prompt:
            note = "has no KV room or no free sequence for it"
        elif lane.is_busy(now, backlog_limit_s):
            late = "; it should have begun by now" if lane.late_from_s < now else ""
            note = f"busy: {lane.wait_s(now):.2g} s of prefill before it{late}"
        return Score(sum(terms.values()), cached, terms, note)
