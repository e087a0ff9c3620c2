"""Who is clearly open: bounds on one backend that hold until its state changes.

Until then a backlog can only shrink and the stretch of a token only fade, so what was low enough
when they were worked out still is. Whoever is not clearly open is looked at closely (``gate.py``).
"""

from __future__ import annotations

import math

from router.domain.state import BackendView
from router.perf.estimate import prefill_backlog_s
from router.queue.class_room import Entry

KV_LIMIT = 0.95
CLEAR = 1.0 - 1e-9
"""Sums of the same terms in another order differ by less than this."""

SMALL_TOKENS = 8_192
"""For requests that hold no more on average, one bound on all of them is looked at first."""


class Demand:
    """What one request asks of any backend.

    Args:
        entry: the request.
        tau_limit_s: what a token may take, stretched.
        of_idle: and of what it would take alone, so much more.
        cap_s: what backlog and prompt may take together.
        e2e_s: what all of it may take from now on.
    """

    __slots__ = ("cap_s", "e2e_s", "half_pairs", "needed", "of_idle", "output", "prompt", "tau_s")

    def __init__(
        self, entry: Entry, tau_limit_s: float, of_idle: float, cap_s: float, e2e_s: float
    ) -> None:
        request = entry.request
        self.prompt = prompt = request.prompt_tokens
        self.output = max(request.forecast.mean_tokens, 1.0)
        self.needed = prompt + 0.5 * self.output
        self.half_pairs = 0.5 * prompt * prompt
        self.tau_s, self.of_idle = CLEAR * tau_limit_s, CLEAR * of_idle
        self.cap_s, self.e2e_s = CLEAR * cap_s, CLEAR * e2e_s


class Glance:
    """One backend as of a version of its state.

    Args:
        view: the backend.
        stretch: how much longer tokens take because of prompts.
        now: the time.

    Attributes:
        version: of the state.
        idle: nothing is in flight there.
        room_tokens: so many more it has KV for, and a free sequence.
        small_tau_s, small_stretched_s: what a token takes at most that is added by a small
            request, and with the stretch.
        small_prompt_s, small_begin_s: what each token of its prompt takes at most, and what there
            is besides until its answer begins.
    """

    __slots__ = (
        "_alone_s",
        "_backlog_ends_s",
        "_chunks_per_token",
        "_context_s",
        "_pair_s",
        "_prefill_s",
        "_stretch",
        "_tau_s",
        "idle",
        "room_tokens",
        "small_begin_s",
        "small_prompt_s",
        "small_stretched_s",
        "small_tau_s",
        "version",
    )

    def __init__(self, view: BackendView, stretch: float, now: float) -> None:
        cost, held = view.cost, view.in_flight
        backlog_s = prefill_backlog_s(view, now)
        self.version, self._stretch = view.version, stretch
        self.idle = held <= 0
        self._context_s, self._prefill_s, self._pair_s = cost.context_s, cost.prefill_s, cost.pair_s
        self._alone_s = cost.step_s + cost.seq_s
        self._tau_s = self._alone_s + cost.seq_s * held + cost.context_s * view.context_tokens
        self._chunks_per_token = 1.0 / view.chunk_tokens
        self._backlog_ends_s = now + backlog_s
        if self.idle:
            self.room_tokens = math.inf
        elif held >= view.max_num_seqs:
            self.room_tokens = -math.inf
        else:
            room = KV_LIMIT * view.kv_capacity_tokens - view.context_tokens
            self.room_tokens = room - (1.0 - CLEAR) * view.kv_capacity_tokens
        self.small_tau_s = tau_s = self._tau_s + cost.context_s * SMALL_TOKENS
        self.small_stretched_s = tau_s * stretch
        self.small_prompt_s = cost.prefill_s + self._chunks_per_token * tau_s
        self.small_prompt_s += cost.pair_s * 0.5 * SMALL_TOKENS
        self.small_begin_s = backlog_s + tau_s

    def clear(self, demand: Demand, now: float) -> bool:
        """Whether a request of any size is clearly no more than may be."""
        added_s = self._context_s * demand.needed
        tau_s = self._tau_s + added_s
        limit_s = demand.tau_s + demand.of_idle * (self._alone_s + added_s)
        if demand.needed > self.room_tokens or tau_s * self._stretch > limit_s:
            return False
        own_s = demand.prompt * (self._prefill_s + self._chunks_per_token * tau_s)
        own_s += self._pair_s * demand.half_pairs + tau_s
        own_s += max(self._backlog_ends_s - now, 0.0)
        return own_s <= demand.cap_s and own_s + demand.output * tau_s <= demand.e2e_s
