"""Motley's own policy: least added pain, over TTFT and E2E together, bound as late as is safe.

For request r on backend b, with prompt p (cached prefix deducted) and forecast output o::

    T     = waited so far + TTFT(b, p)
    tau   = TPOT(b, p, o) * stretch(b)            stretch = 1 / (1 - share of time b prefills)
    E     = T + o * tau
    pain  = w * (T / T98)^4 + (E / E98)^2
          + externality * crowding(b) * 2 * (o * tau / E98) * inflicted(b) / E98
          + price_weight * 2 * (E / E98) * price(b) * engine-seconds(b) / E98
    inflicted(b) = p * prefill_s * decoding  +  (seq_s + context_s * (p + o/2)) * stretch * overlap
    crowding(b)  = tau / TPOT of b alone

Why each term:

* The powers make it care for the tail: a second on top of ten hurts more than one on top of one,
  both for r and for those it slows (the derivative of their square). TTFT has the higher power
  because all that matters of it is not to be in the tail.
* T98 and E98 are the recent 98th percentiles of what was delivered, so one weight ``w`` serves
  every trace, model and fleet.
* ``stretch``: while an engine prefills, decoding stands still (SGLang) or crawls (vLLM), so TPOT
  grows with the share of prefill; it is the main cost of putting long prompts on slow cards.
* ``inflicted`` is the delay of the requests already there; without it the fast cards are
  overfilled (marginal-cost routing, Bell and Stidham 1983). ``crowding`` adds those still to come:
  in a processor-sharing queue the whole externality is ``1 / (1 - rho)`` times the present one,
  and the slow-down of the batch is the measure of that.

Late binding: a backend whose prefill backlog exceeds ``backlog_s`` seconds, or whose KV is full,
takes nothing more; if all are so, the request waits in the router, oldest first, and goes to
whichever backend frees up: a request bound to a slow card cannot come back, and errors of the
belief cannot pile up in an engine's queue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from router.domain.outcome import Outcome
from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.context import PolicyContext
from router.policies.prefix_index import PrefixIndex
from router.policies.tail_scale import TailScale

STRETCH_LIMIT = 0.8
MEMORY_S = 10.0
KV_LIMIT = 0.9


class _Lane:
    """What is derived from one backend's state, until its version changes."""

    __slots__ = (
        "backlog_ends_s",
        "busy",
        "busy_s",
        "busy_since_s",
        "fixed_s",
        "overlap_half_tokens",
        "per_token_s",
        "stall",
        "step_s",
        "version",
    )

    def __init__(self) -> None:
        self.version = -1
        self.busy_s = 0.0
        self.busy_since_s = 0.0

    def refresh(self, view: BackendView) -> None:
        """Recompute the coefficients of the score."""
        cost = view.cost
        share_s = cost.step_s + cost.seq_s * view.decoding + cost.context_s * view.context_tokens
        self.busy = view.in_flight > 0
        self.per_token_s = cost.prefill_s + share_s / view.chunk_tokens
        self.fixed_s = share_s * (1.5 if self.busy else 1.0)
        self.step_s = (
            cost.step_s + cost.seq_s * (view.in_flight + 1) + cost.context_s * view.context_tokens
        )
        self.stall = cost.prefill_s * view.decoding
        self.overlap_half_tokens = 0.5 * view.pending_output_tokens
        self.backlog_ends_s = -math.inf
        if view.prefilling:
            backlog_s = self.per_token_s * view.pending_prefill_tokens + share_s
            self.backlog_ends_s = view.prefill_since_s + backlog_s
        self.version = view.version

    def prefill_share(self, now: float) -> float:
        """Recent share of its time that the backend spends on prefill, 0 to ``STRETCH_LIMIT``."""
        if not self.busy_s:
            return 0.0
        decayed_s = self.busy_s * math.exp((self.busy_since_s - now) / MEMORY_S)
        return min(decayed_s / MEMORY_S, STRETCH_LIMIT)

    def add_prefill(self, seconds: float, now: float) -> None:
        """A prompt was sent here."""
        self.busy_s = self.busy_s * math.exp((self.busy_since_s - now) / MEMORY_S) + seconds
        self.busy_since_s = now


class Motley:
    """Argmin of the added pain among the backends that can begin soon.

    Parameters: ``ttft_weight`` (w), ``externality``, ``price_weight``, ``backlog_s``.
    """

    def __init__(self, context: PolicyContext) -> None:
        self._ttft_weight = context.param("ttft_weight", 0.1)
        self._externality = context.param("externality", 1.0)
        self._price_weight = context.param("price_weight", 1.0)
        self._backlog_s = context.param("backlog_s", 0.3)
        self._prefix_weight = context.param("prefix_weight", 1.0)
        self._lanes: dict[str, _Lane] = {}
        self._scale = TailScale()
        self._index = PrefixIndex()

    def observe(self, outcome: Outcome) -> None:
        """Keep the scales of TTFT and E2E current."""
        self._scale.observe(outcome)

    def choose(
        self, request: Request, candidates: Sequence[BackendView], now: float
    ) -> BackendView | None:
        """The least pain, or ``None`` while everything is saturated."""
        waited_s = now - request.arrival_s
        output = max(request.forecast.mean_tokens, 1.0)
        best: BackendView | None = None
        least_pain = math.inf
        for view in candidates:
            lane = self._lane(view)
            backlog_s = max(lane.backlog_ends_s - now, 0.0)
            if backlog_s > self._backlog_s or not _has_room(view, request.prompt_tokens):
                continue
            prompt = self._uncached(view, request)
            pain = self._pain(view, lane, prompt, output, waited_s + backlog_s, now)
            if pain < least_pain:
                best, least_pain = view, pain
        if best is not None:
            self._commit(best, request, now)
        return best

    def _pain(  # noqa: PLR0917
        self,
        view: BackendView,
        lane: _Lane,
        prompt: float,
        output: float,
        waited_s: float,
        now: float,
    ) -> float:
        cost, worst_s = view.cost, self._scale.e2e_s
        stretch = 1.0 / (1.0 - lane.prefill_share(now))
        ttft = waited_s + lane.fixed_s + prompt * lane.per_token_s
        context = prompt + 0.5 * output
        tau = (lane.step_s + cost.context_s * context) * stretch
        decode_s = output * tau
        e2e = (ttft + decode_s) / worst_s
        pain = self._ttft_weight * (ttft / self._scale.ttft_s) ** 4 + e2e * e2e
        if lane.busy:
            overlap = min(lane.overlap_half_tokens, view.in_flight * output)
            slower_s = (cost.seq_s + cost.context_s * context) * stretch * overlap
            inflicted = (prompt * lane.stall + slower_s) / worst_s
            crowding = tau / (cost.step_s + cost.seq_s)
            pain += self._externality * crowding * 2.0 * (decode_s / worst_s) * inflicted
        if view.price:
            engine_s = prompt * cost.prefill_s + output * (
                cost.seq_s + cost.context_s * context + cost.step_s / (view.in_flight + 1)
            )
            pain += self._price_weight * 2.0 * e2e * view.price * engine_s / worst_s
        return pain

    def _lane(self, view: BackendView) -> _Lane:
        lane = self._lanes.get(view.spec.name)
        if lane is None:
            lane = self._lanes[view.spec.name] = _Lane()
        if lane.version != view.version:
            lane.refresh(view)
        return lane

    def _uncached(self, view: BackendView, request: Request) -> float:
        if not request.prefix_hashes:
            return request.prompt_tokens
        matched = self._index.matched_tokens(
            view.spec.name, request.prefix_hashes, request.prefix_block_tokens
        )
        return max(request.prompt_tokens - self._prefix_weight * matched, 1.0)

    def _commit(self, view: BackendView, request: Request, now: float) -> None:
        uncached = self._uncached(view, request)
        self._lanes[view.spec.name].add_prefill(uncached * view.cost.prefill_s, now)
        self._index.insert(
            view.spec.name,
            request.prefix_hashes,
            request.prefix_block_tokens,
            view.kv_capacity_tokens,
        )


def _has_room(view: BackendView, prompt_tokens: int) -> bool:
    """Whether the engine would admit the prompt now; an idle engine always would."""
    if not view.in_flight:
        return True
    return (
        view.context_tokens + prompt_tokens <= KV_LIMIT * view.kv_capacity_tokens
        and view.in_flight < view.max_num_seqs
    )
