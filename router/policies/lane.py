"""One backend as Motley's policy scores it: coefficients that change only when its state does."""

from __future__ import annotations

import math

from router.domain.state import BackendView
from router.policies.ask import Ask
from router.policies.crowd import Crowd
from router.policies.prefix_trust import PrefixTrust

MEMORY_S = 10.0
PREFILL_SHARE_LIMIT = 0.8
KV_LIMIT = 0.9
BACK_OFF = 0.9
RECOVERY = 0.0005
LATE_S = 0.3
LATE_SHARE = 0.5
LEAST_FIRST_S = 0.1
"""A shorter first prompt that is late tells of steps and networks, not of the engine's speed."""
NEVER = -math.inf
_exp = math.exp


class Lane:
    """Cached coefficients of one backend, and its recent share of prefill.

    Attributes:
        view, name, group: the backend, its name and its kind.
        version: of the state that the coefficients were computed from.
        key: pain of a typical request, without the prefill share; orders backends of one kind,
            and is 0 where there is only one.
        backlog_ends_s: when the prompts already there should be prefilled; -infinity if none are.
        late_from_s: when the first of them should be; infinity if none are.
        room_tokens: longest prompt that the engine would admit now.
        trust: in what the index has cached here.
        crowd: who is met here.
    """

    __slots__ = (
        "_behind_s",
        "_busy_s",
        "_busy_since_s",
        "_context_s",
        "_decoding",
        "_first_pairs",
        "_first_since_s",
        "_first_tokens",
        "_fixed_s",
        "_in_flight",
        "_kv_limit",
        "_last_sent_s",
        "_left_each_tokens",
        "_left_tokens",
        "_mean_arrival_s",
        "_pair_s",
        "_per_crowding",
        "_per_late_s",
        "_per_token_s",
        "_prefill_s",
        "_price",
        "_seq_s",
        "_share_s",
        "_shared_step_s",
        "_stall",
        "_step_s",
        "backlog_ends_s",
        "crowd",
        "group",
        "key",
        "late_from_s",
        "name",
        "room_tokens",
        "trust",
        "version",
        "view",
    )

    def __init__(self, view: BackendView) -> None:
        self.view = view
        self.group = view.spec.group
        self.name = view.spec.name
        self.version = -1
        self.key = 0.0
        self.trust, self.crowd = PrefixTrust(keeps=view.prefix_caching), Crowd()
        self._busy_s = 0.0
        self._busy_since_s = 0.0
        self._first_since_s, self._first_tokens, self._first_pairs = NEVER, 0.0, 0.0
        self._last_sent_s = NEVER
        self._kv_limit = KV_LIMIT

    def refresh(self, now: float) -> None:
        """Recompute the coefficients from the backend's state."""
        view = self.view
        cost, in_flight = view.cost, view.in_flight
        held_s = cost.context_s * view.context_tokens
        share_s = cost.step_s + cost.seq_s * view.decoding + held_s
        self.version = view.version
        self._in_flight = in_flight
        self._prefill_s, self._pair_s = cost.prefill_s, cost.pair_s
        self._seq_s, self._context_s = cost.seq_s, cost.context_s
        self._share_s = share_s
        self._per_token_s = cost.prefill_s + share_s / view.chunk_tokens
        self._fixed_s = share_s * (1.5 if in_flight else 1.0)
        self._step_s = cost.step_s + cost.seq_s * (in_flight + 1) + held_s
        self._shared_step_s = cost.step_s / (in_flight + 1)
        self._decoding = view.decoding
        self._stall = cost.prefill_s * view.decoding
        self._left_tokens = view.pending_output_tokens
        if not in_flight:
            self.crowd.disperse()
        self._weigh_others()
        if in_flight:
            self._mean_arrival_s = view.mean_arrival_s
            self._left_each_tokens = view.pending_output_tokens / in_flight
        self._price = view.price
        self.backlog_ends_s, self.late_from_s = NEVER, math.inf
        late = False
        if view.prefilling:
            backlog_s = self._per_token_s * view.pending_prefill_tokens + share_s
            backlog_s += cost.pair_s * view.pending_prefill_pairs
            self.backlog_ends_s = view.prefill_since_s + backlog_s
            self._watch_first(backlog_s)
            late = now - self.backlog_ends_s > LATE_S + LATE_SHARE * backlog_s
        self._learn_kv_limit(late)
        self.room_tokens = self._room_tokens()

    def take_over(self, known: Lane) -> None:
        """Learn what another lane of the same backend has learned."""
        self._busy_s, self._busy_since_s = known._busy_s, known._busy_since_s
        self.trust, self.crowd, self._kv_limit = known.trust, known.crowd, known._kv_limit
        self._weigh_others()
        if known._first_since_s == self._first_since_s and self.backlog_ends_s > NEVER:
            self._first_tokens, self._first_pairs = known._first_tokens, known._first_pairs
            self._last_sent_s = known._last_sent_s
            self._watch_first(self.backlog_ends_s - self._first_since_s)
        self.room_tokens = self._room_tokens()

    def wait_s(self, now: float) -> float:
        """Seconds until a prompt sent now would begin.

        A prefill that should be over and is not tells of something unseen (an admission rule of
        the engine, a slow card): expect it to take as long again as it is late already, and those
        behind it to be late in proportion.
        """
        late_s = now - self.late_from_s
        if late_s >= 0.0:
            return self._behind_s + self._per_late_s * late_s
        return self.backlog_ends_s - now if self.backlog_ends_s > NEVER else 0.0

    def is_busy(self, now: float, backlog_s: float) -> bool:
        """Whether nothing more is sent here: too much to prefill, or too late with it."""
        return self.backlog_ends_s > now + backlog_s or self.late_from_s < now - backlog_s

    def _watch_first(self, backlog_s: float) -> None:
        """Prompts are computed in their order: those there since the last one was are the first.

        So are those that come within the step that the engine was at: they share its next one. What
        is sent later must not hide that the first are late.
        """
        view = self.view
        since_s = view.prefill_since_s
        with_them = 0.0 <= self._last_sent_s - since_s <= self._share_s
        if since_s != self._first_since_s or with_them:
            self._first_since_s = since_s
            self._first_tokens = view.pending_prefill_tokens
            self._first_pairs = view.pending_prefill_pairs
        first_s = self._per_token_s * self._first_tokens + self._share_s
        first_s = min(first_s + self._pair_s * self._first_pairs, backlog_s)
        self.late_from_s = since_s + first_s
        self._behind_s = backlog_s - first_s
        self._per_late_s = backlog_s / max(first_s, min(LEAST_FIRST_S, backlog_s))

    def room_wait_s(self, prompt: int, ahead: int = 0) -> float:
        """Seconds until the engine would admit a prompt, behind others of so many tokens.

        Requests end one after the other and each frees what it holds: one at least has to end, and
        when all have, any prompt is admitted.
        """
        view, limit = self.view, self._kv_limit * self.view.kv_capacity_tokens
        if not self._in_flight:
            return 0.0
        held = view.context_tokens
        one, excess = 1.0 / self._in_flight, held + ahead + prompt - limit
        if excess > 0.0:
            share = max(one, excess / held if excess < held else 1.0)
        else:
            share = one if self._in_flight >= view.max_num_seqs else 0.0
        return share * self._left_each_tokens * self._step_s

    def prompt_s(self, prompt: int, cached: int) -> float:
        """Seconds that a prompt takes here among the tokens of others."""
        fresh = prompt - cached
        return fresh * self._per_token_s + self._pair_s * fresh * (cached + 0.5 * fresh)

    def prefill_share(self, now: float) -> float:
        """Recent share of its time that the backend spends on prefill."""
        if not self._busy_s:
            return 0.0
        share = self._busy_s * _exp((self._busy_since_s - now) / MEMORY_S) / MEMORY_S
        return share if share < PREFILL_SHARE_LIMIT else PREFILL_SHARE_LIMIT

    def add_prefill(self, prompt: int, cached: int, now: float) -> None:
        """A prompt was sent here."""
        decay = _exp((self._busy_since_s - now) / MEMORY_S)
        self._busy_s = self._busy_s * decay + self.view.cost.prompt_s(prompt, cached)
        self._busy_since_s = self._last_sent_s = now

    def pain(self, ask: Ask, cached: int) -> float:
        """Added pain of one request here; the formula is in ``motley.py``.

        Nobody asks by how much it is above ``ask.least``.

        Args:
            ask: the request.
            cached: of its prompt, the tokens that are probably cached here.
        """
        now, output = ask.now, ask.output
        ends_s = self.backlog_ends_s
        wait_s = 0.0
        if ends_s > NEVER:
            late_s = now - self.late_from_s
            wait_s = ends_s - now if late_s < 0.0 else self._behind_s + self._per_late_s * late_s
        stretch = 1.0
        if self._busy_s and not ask.typical:
            stretch = 1.0 / (1.0 - self.prefill_share(now))
        fresh = ask.prompt - cached
        pairs_s = self._pair_s * fresh * (cached + 0.5 * fresh)
        ttft = ask.waited_s + wait_s + self._fixed_s + fresh * self._per_token_s + pairs_s
        context_s = self._context_s * ask.context
        tau = (self._step_s + context_s) * stretch
        late = ttft / ask.tail_ttft_s
        late *= late
        e2e = ttft + output * tau
        pain = ask.per_late * late * late + (e2e * e2e + ask.spread * tau * tau) / ask.tail_square
        if pain >= ask.least:
            return pain
        if ask.per_overshoot:
            pain += ask.per_overshoot * ask.exceeds((ask.tail_e2e_s - ttft) / tau)
        if self._in_flight:
            overlap = self._in_flight * output
            left = self._left_tokens
            inflicted_s = fresh * self._stall + pairs_s * self._decoding
            inflicted_s += (
                (self._seq_s + context_s) * stretch * (left if left < overlap else overlap)
            )
            age_s = now - self._mean_arrival_s
            theirs_s = (age_s if age_s > 0.0 else 0.0) + self._left_each_tokens * tau
            if ask.flat:
                theirs_s = (1.0 - ask.flat) * theirs_s + ask.flat * output * tau
            crowding = (self._step_s + context_s) * self._per_crowding
            pain += ask.per_inflicted * crowding * theirs_s * inflicted_s / ask.tail_square
        if self._price and ask.per_price:
            engine_s = fresh * self._prefill_s + pairs_s
            engine_s += output * (self._seq_s + context_s + self._shared_step_s)
            pain += ask.per_price * e2e * self._price * engine_s / ask.tail_square
        return pain

    def _weigh_others(self) -> None:
        """What is inflicted counts as much as those who are met here do, on average."""
        cost = self.view.cost
        self._per_crowding = self.crowd.weight / (cost.step_s + cost.seq_s)

    def _learn_kv_limit(self, late: bool) -> None:
        """Find out how full the engine lets itself get before it stops admitting.

        vLLM admits until its blocks run out; SGLang sets room aside for answers to come, by a rule
        that no metric tells. A prefill long overdue says that the engine was too full as it is.
        """
        if late:
            held = self.view.context_tokens / self.view.kv_capacity_tokens
            self._kv_limit = min(self._kv_limit, BACK_OFF * held)
        else:
            self._kv_limit += RECOVERY * (KV_LIMIT - self._kv_limit)

    def _room_tokens(self) -> float:
        """Longest prompt that the engine would admit now; an idle engine admits any."""
        view = self.view
        if not view.in_flight:
            return math.inf
        if view.in_flight >= view.max_num_seqs:
            return 0.0
        return self._kv_limit * view.kv_capacity_tokens - view.context_tokens
