"""One backend as Motley's policy scores it: coefficients that change only when its state does."""

from __future__ import annotations

import math

from router.domain.state import BackendView
from router.policies.tail_scale import TailScale

MEMORY_S = 10.0
PREFILL_SHARE_LIMIT = 0.8
KV_LIMIT = 0.9


class Lane:
    """Cached coefficients of one backend, and its recent share of prefill.

    Attributes:
        view: the backend.
        version: of the state that the coefficients were computed from.
        key: pain of a typical request, without the prefill share; orders backends of one kind.
        backlog_ends_s: when the prompts already there will be prefilled.
        room_tokens: longest prompt that the engine would admit now.
    """

    __slots__ = (
        "_alone_s",
        "_busy_s",
        "_busy_since_s",
        "_context_s",
        "_decoding",
        "_fixed_s",
        "_half_pending_tokens",
        "_in_flight",
        "_pair_s",
        "_per_token_s",
        "_prefill_s",
        "_price",
        "_seq_s",
        "_shared_step_s",
        "_stall",
        "_step_s",
        "backlog_ends_s",
        "group",
        "key",
        "room_tokens",
        "version",
        "view",
    )

    def __init__(self, view: BackendView) -> None:
        self.view = view
        self.group = view.spec.group
        self.version = -1
        self.key = 0.0
        self._busy_s = 0.0
        self._busy_since_s = 0.0

    def refresh(self) -> None:
        """Recompute the coefficients from the backend's state."""
        view = self.view
        cost, in_flight = view.cost, view.in_flight
        held_s = cost.context_s * view.context_tokens
        share_s = cost.step_s + cost.seq_s * view.decoding + held_s
        self.version = view.version
        self._in_flight = in_flight
        self._prefill_s, self._pair_s = cost.prefill_s, cost.pair_s
        self._seq_s, self._context_s = cost.seq_s, cost.context_s
        self._alone_s = cost.step_s + cost.seq_s
        self._per_token_s = cost.prefill_s + share_s / view.chunk_tokens
        self._fixed_s = share_s * (1.5 if in_flight else 1.0)
        self._step_s = cost.step_s + cost.seq_s * (in_flight + 1) + held_s
        self._shared_step_s = cost.step_s / (in_flight + 1)
        self._decoding = view.decoding
        self._stall = cost.prefill_s * view.decoding
        self._half_pending_tokens = 0.5 * view.pending_output_tokens
        self._price = view.price
        self.room_tokens = _room_tokens(view)
        self.backlog_ends_s = -math.inf
        if view.prefilling:
            backlog_s = self._per_token_s * view.pending_prefill_tokens + share_s
            backlog_s += cost.pair_s * view.pending_prefill_pairs
            self.backlog_ends_s = view.prefill_since_s + backlog_s

    def prefill_share(self, now: float) -> float:
        """Recent share of its time that the backend spends on prefill."""
        if not self._busy_s:
            return 0.0
        share = self._busy_s * math.exp((self._busy_since_s - now) / MEMORY_S) / MEMORY_S
        return share if share < PREFILL_SHARE_LIMIT else PREFILL_SHARE_LIMIT

    def add_prefill(self, prompt: int, cached: int, now: float) -> None:
        """A prompt was sent here."""
        decay = math.exp((self._busy_since_s - now) / MEMORY_S)
        self._busy_s = self._busy_s * decay + self.view.cost.prompt_s(prompt, cached)
        self._busy_since_s = now

    def pain(  # noqa: PLR0917
        self,
        prompt: int,
        cached: int,
        output: float,
        waited_s: float,
        share: float,
        scale: TailScale,
        weights: Weights,
    ) -> float:
        """Added pain of one request here; the formula is in ``motley.py``.

        Args:
            prompt: prompt tokens.
            cached: of those, the ones that it probably has cached.
            output: forecast output tokens, at least 1.
            waited_s: seconds from arrival until its prefill can begin.
            share: prefill share of this backend.
            scale: recent tails of TTFT and E2E.
            weights: of the terms.
        """
        worst_s = scale.e2e_s
        stretch = 1.0 / (1.0 - share)
        fresh = prompt - cached
        pairs_s = self._pair_s * fresh * (cached + 0.5 * fresh)
        ttft = waited_s + self._fixed_s + fresh * self._per_token_s + pairs_s
        context_s = self._context_s * (prompt + 0.5 * output)
        tau = (self._step_s + context_s) * stretch
        decode = output * tau / worst_s
        e2e = ttft / worst_s + decode
        late = ttft / scale.ttft_s
        late *= late
        pain = weights.ttft * late * late + e2e * e2e
        if self._in_flight:
            overlap = self._in_flight * output
            overlap = min(overlap, self._half_pending_tokens)
            inflicted_s = fresh * self._stall + pairs_s * self._decoding
            inflicted_s += (self._seq_s + context_s) * stretch * overlap
            crowding = tau / self._alone_s
            pain += weights.externality * crowding * 2.0 * decode * inflicted_s / worst_s
        if self._price:
            engine_s = fresh * self._prefill_s + pairs_s
            engine_s += output * (self._seq_s + context_s + self._shared_step_s)
            pain += weights.price * 2.0 * e2e * self._price * engine_s / worst_s
        return pain


class Weights:
    """Weights of the terms of the pain."""

    __slots__ = ("externality", "price", "ttft")

    def __init__(self, ttft: float, externality: float, price: float) -> None:
        self.ttft, self.externality, self.price = ttft, externality, price


def _room_tokens(view: BackendView) -> float:
    """Longest prompt that the engine would admit now; an idle engine admits any."""
    if not view.in_flight:
        return math.inf
    if view.in_flight >= view.max_num_seqs:
        return 0.0
    return KV_LIMIT * view.kv_capacity_tokens - view.context_tokens
