"""Marginal delay: what the request waits itself plus the delay it inflicts on those there.

For request r with prompt p and predicted output o on backend b::

    own      = TTFT(b, p) + o * TPOT(b, p, o)
    inflicts = p * prefill_s * decoding                      its prefill stalls their decoding
             + (seq_s + context_s * (p + o / 2)) * overlap   its decode slows every later token
    price    = shadow price of b's group * engine-seconds of r on b    (weight 0 unless asked for:
               ``benchmarks/price_ablation.py`` found no fleet where it pays)

``overlap`` is the number of tokens that the requests in flight will produce beside r: each of
them at most its own remaining output, at most o. Greedy "lowest predicted latency" lacks the
middle line and overfills the fast cards. Marginal-cost routing: Bell and Stidham 1983.
"""

from __future__ import annotations

from collections.abc import Sequence

from router.domain.request import Request
from router.domain.state import BackendView
from router.perf.estimate import tpot_s, ttft_s
from router.policies.choosing import least
from router.policies.context import PolicyContext


class MarginalDelay:
    """Argmin of own delay + ``externality`` * inflicted delay + ``price_weight`` * price."""

    def __init__(self, context: PolicyContext) -> None:
        self._rng = context.rng
        self._externality = context.param("externality", 1.0)
        self._price_weight = context.param("price_weight", 0.0)

    def choose(
        self, request: Request, candidates: Sequence[BackendView], now: float
    ) -> BackendView | None:
        """The one with the least total."""
        prompt, output = request.prompt_tokens, request.forecast.mean_tokens

        def score(view: BackendView) -> float:
            own = ttft_s(view, prompt, now) + output * tpot_s(view, prompt, output)
            inflicted = inflicted_s(view, prompt, output)
            price = view.price * engine_s(view, prompt, output) if view.price else 0.0
            return own + self._externality * inflicted + self._price_weight * price

        return least(candidates, score, self._rng)


def inflicted_s(view: BackendView, prompt_tokens: int, output_tokens: float) -> float:
    """Seconds of delay, summed over the requests in flight, that one more request causes."""
    if not view.in_flight:
        return 0.0
    cost = view.cost
    overlap_tokens = min(view.pending_output_tokens, view.in_flight * output_tokens)
    slower_s = cost.seq_s + cost.context_s * (prompt_tokens + 0.5 * output_tokens)
    stall_s = cost.prefill_s * prompt_tokens * view.decoding
    return stall_s + slower_s * overlap_tokens


def engine_s(view: BackendView, prompt_tokens: int, output_tokens: float) -> float:
    """Engine-seconds of one request: its prefill and its share of the iterations it is in."""
    cost = view.cost
    batch = view.in_flight + 1
    own = cost.seq_s + cost.context_s * (prompt_tokens + 0.5 * output_tokens)
    return cost.prefill_s * prompt_tokens + output_tokens * (own + cost.step_s / batch)
