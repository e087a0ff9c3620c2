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
belief cannot pile up in an engine's queue. If only some are so, and waiting for one of them would
hurt ``hold_margin`` times less than the best of the others (a very long prompt and only slow
cards free), the request waits for that one, and nobody behind it gets that one first.

Speed: the pain of a typical request is kept per backend and recomputed when its state changes;
per decision only the two best of each group of identical hardware, and those that hold the
prompt's prefix, are scored exactly. Beyond ``SAMPLE_ABOVE`` backends every k-th is looked at, from
a random start: of a group of m the best of m / k stands in for the best, so the expected rank of
the choice within its group is k; if none of them can take the request, all are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from router.domain.explanation import Score
from router.domain.outcome import Outcome
from router.domain.protocols import Hold
from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.context import PolicyContext
from router.policies.lane import Lane, Weights
from router.policies.motley_account import score_of
from router.policies.prefix_index import PrefixIndex
from router.policies.tail_scale import TailScale

SAMPLE_ABOVE = 256
SAMPLE_SIZE = 128
TYPICAL_PROMPT_TOKENS = 1000
TYPICAL_OUTPUT_TOKENS = 200.0


class Motley:
    """Argmin of the added pain among the backends that can begin soon.

    Parameters: ``ttft_weight`` (w), ``externality``, ``price_weight``, ``backlog_s``,
    ``hold_margin``, ``prefix_weight`` (0: the prefix cache is ignored).
    """

    def __init__(self, context: PolicyContext) -> None:
        self._rng = context.rng
        self._weights = Weights(
            context.param("ttft_weight", 0.1),
            context.param("externality", 1.0),
            context.param("price_weight", 1.0),
        )
        self._backlog_s = context.param("backlog_s", 0.3)
        self._hold_margin = context.param("hold_margin", 1.5)
        self._prefix_weight = context.param("prefix_weight", 1.0)
        self._lanes: dict[int, Lane] = {}
        self._scale = TailScale()
        self._index = PrefixIndex()

    def observe(self, outcome: Outcome) -> None:
        """Keep the scales of TTFT and E2E current."""
        self._scale.observe(outcome)

    def choose(
        self, request: Request, candidates: Sequence[BackendView], now: float
    ) -> BackendView | Hold | None:
        """The least pain, or what to wait for."""
        free, busy = self._shortlist(self._sample(candidates), request, now)
        if not free and len(candidates) > SAMPLE_ABOVE:
            free, busy = self._shortlist(candidates, request, now)
        if not free:
            return None
        chosen, pain = self._best(free, request, now)
        if busy:
            awaited, later_pain = self._best(busy, request, now)
            if later_pain * self._hold_margin < pain:
                return Hold(awaited.view)
        return chosen.view

    def dispatched(self, request: Request, backend: BackendView, now: float) -> int:
        """Remember the prompt as cached there; return the tokens that were cached before."""
        cached = self._cached(backend, request)
        self._lane(backend).add_prefill(request.prompt_tokens, cached, now)
        self._index.insert(
            backend.spec.name,
            request.prefix_hashes,
            request.prefix_block_tokens,
            backend.kv_capacity_tokens,
        )
        return cached

    def explain(
        self, request: Request, candidates: Sequence[BackendView], now: float
    ) -> dict[str, Score]:
        """The pain on each candidate, term by term; changes nothing."""
        return {view.spec.name: self._score(view, request, now) for view in candidates}

    def _score(self, view: BackendView, request: Request, now: float) -> Score:
        lane = self._lanes.get(view.index)
        share = lane.prefill_share(now) if lane is not None and lane.view is view else 0.0
        return score_of(
            view,
            request,
            self._cached(view, request),
            share,
            self._scale,
            self._weights,
            self._backlog_s,
            now,
        )

    def hint(self, backend: BackendView, hashes: Sequence[int], block_tokens: int) -> None:
        """Remember a prompt that another replica sent there."""
        if self._prefix_weight:
            self._index.insert(backend.spec.name, hashes, block_tokens, backend.kv_capacity_tokens)

    def _sample(self, candidates: Sequence[BackendView]) -> Sequence[BackendView]:
        """All of them, or every k-th; from a random one on, so that ties are broken at random."""
        if len(candidates) <= SAMPLE_ABOVE:
            start = int(self._rng.random() * len(candidates))
            return [*candidates[start:], *candidates[:start]]
        step = len(candidates) // SAMPLE_SIZE
        return candidates[int(self._rng.random() * step) :: step]

    def _shortlist(
        self, candidates: Sequence[BackendView], request: Request, now: float
    ) -> tuple[list[Lane], list[Lane]]:
        """Who is worth scoring: those that can begin soon, and those worth waiting for.

        The first are the two best of each group by key, and the holders of the prefix; the second
        the soonest free of each group. None without room for the prompt is in either.
        """
        lanes, limit, prompt = self._lanes, now + self._backlog_s, request.prompt_tokens
        holders = self._index.holders(request.prefix_hashes)
        first: dict[str, Lane] = {}
        second: dict[str, Lane] = {}
        soonest: dict[str, Lane] = {}
        free: list[Lane] = []
        for view in candidates:
            lane = lanes.get(view.index)
            if lane is None or lane.version != view.version:
                lane = self._refreshed(view, now)
            if lane.room_tokens < prompt:
                continue
            group = lane.group
            if lane.backlog_ends_s > limit:
                rival = soonest.get(group)
                if rival is None or lane.backlog_ends_s < rival.backlog_ends_s:
                    soonest[group] = lane
                continue
            leader = first.get(group)
            if leader is None:
                first[group] = lane
            elif lane.key < leader.key:
                first[group], second[group] = lane, leader
            elif group not in second or lane.key < second[group].key:
                second[group] = lane
            if holders and view.spec.name in holders:
                free.append(lane)
        free += first.values()
        free += second.values()
        return free, list(soonest.values())

    def _lane(self, view: BackendView) -> Lane:
        lane = self._lanes.get(view.index)
        if lane is None or lane.view is not view:
            lane = self._lanes[view.index] = Lane(view)
        return lane

    def _refreshed(self, view: BackendView, now: float) -> Lane:
        lane = self._lane(view)
        lane.refresh()
        backlog_s = max(lane.backlog_ends_s - now, 0.0)
        lane.key = lane.pain(
            TYPICAL_PROMPT_TOKENS,
            0,
            TYPICAL_OUTPUT_TOKENS,
            backlog_s,
            0.0,
            self._scale,
            self._weights,
        )
        return lane

    def _best(self, lanes: list[Lane], request: Request, now: float) -> tuple[Lane, float]:
        waited_s = now - request.arrival_s
        output = max(request.forecast.mean_tokens, 1.0)
        best, least = lanes[0], math.inf
        for lane in lanes:
            backlog_s = max(lane.backlog_ends_s - now, 0.0)
            pain = lane.pain(
                request.prompt_tokens,
                self._cached(lane.view, request),
                output,
                waited_s + backlog_s,
                lane.prefill_share(now),
                self._scale,
                self._weights,
            )
            if pain < least:
                best, least = lane, pain
        return best, least

    def _cached(self, view: BackendView, request: Request) -> int:
        """Prompt tokens the backend probably has; an engine always computes the last one."""
        if not request.prefix_hashes:
            return 0
        matched = self._index.matched_tokens(
            view.spec.name, request.prefix_hashes, request.prefix_block_tokens
        )
        computed_at_least = min(request.prompt_tokens, 1)
        return min(int(matched * self._prefix_weight), request.prompt_tokens - computed_at_least)
