"""Which backends are open to one request: those where it keeps its targets and spoils nobody's.

For a request on backend b, with the predictions of ``router.perf.estimate`` and the time that b
recently spent on prefill (decoding stands still meanwhile)::

    room      KV for the prompt and half of the answer, and a free sequence
    TPOT      tau(b) / (1 - prefill share) <= margin * the tightest TPOT target in use on the model
              (only so much of what it adds to an idle backend's as was learned: ``caution``)
    TTFT      waited + TTFT(b) <= margin * its own target                    (if it is urgent)
    others    for all but the tightest class in use, on a backend that is not idle:
              tau(b) / (1 - prefill share) <= headroom * margin * the tightest TPOT target
              backlog(b) + own prefill     <= protect * the tightest TTFT target
    E2E       waited + TTFT(b) + output * tau <= margin * its own target

At its last chance a request may use up its own TTFT and E2E targets whole. The TPOT of a backend on
which others decode it may not: that would spoil their answers for one more. "In use" means that a
request of such a class came in the last minute. An idle backend is open to whoever has no target of
its own to miss.
Cost: about a quarter of a microsecond a backend, paid only where classes are scheduled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from router.domain.slo import Slo
from router.domain.state import BackendView
from router.perf.estimate import prefill_backlog_s
from router.queue.class_room import Entry
from router.queue.glance import KV_LIMIT, SMALL_TOKENS, Demand, Glance

_MEMORY_S = 6.0
_MOST_SHARE = 0.75
_AGED_BACKLOG_S = 0.3

View = TypeVar("View", bound=BackendView)


@dataclass(frozen=True, slots=True)
class Limits:
    """What must not be exceeded on a model's backends.

    Attributes:
        tpot_s: tightest TPOT target in use; infinity if there is none.
        ttft_s: tightest TTFT target in use; infinity if there is none.
        share: of what lies between a token's time on an idle backend and the limit, how much may
            be used.
    """

    tpot_s: float = math.inf
    ttft_s: float = math.inf
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Relief:
    """What taking one request back from a backend would free."""

    prefill_s: float = 0.0
    context_tokens: float = 0.0
    seqs: int = 0


NO_RELIEF = Relief()


class Gate:
    """Judges backends; keeps the recent prefill share of each.

    Args:
        margin: share of a target that a prediction may use up.
        protect: share of the tightest TTFT target that the backlog may reach for others.
        headroom: share of the tightest TPOT limit that others may use up.
    """

    def __init__(self, margin: float, protect: float, headroom: float) -> None:
        self._margin, self._protect, self._headroom = margin, protect, headroom
        self._busy: dict[int, tuple[float, float]] = {}
        self._seen: dict[int, Glance] = {}

    def sent(self, view: BackendView, prompt_tokens: int, now: float) -> None:
        """A prompt goes to this backend."""
        busy_s, since_s = self._busy.get(view.index, (0.0, now))
        decayed = busy_s * math.exp((since_s - now) / _MEMORY_S)
        self._busy[view.index] = (decayed + view.cost.prompt_s(prompt_tokens), now)
        self._seen.pop(view.index, None)

    def forget(self, index: int) -> None:
        """A backend left; one that joins later has another index, even under the same name."""
        self._busy.pop(index, None)
        self._seen.pop(index, None)

    def open(
        self,
        entry: Entry,
        options: Sequence[View],
        limits: Limits,
        now: float,
        *,
        aged: bool = False,
        last: bool = False,
    ) -> list[View]:
        """The backends that may take it now; ``last`` if it will not be asked about again.

        Most are clearly open (``glance.py``). Only who is not is looked at closely.
        """
        if aged or last:
            return [
                b for b in options if not self.obstacle(entry, b, limits, now, aged=aged, last=last)
            ]
        demand, known, idle_will_do = self._demand(entry, limits, now), self._seen, not entry.urgent
        prompt, output, needed = demand.prompt, demand.output, demand.needed
        cap_s, e2e_s = demand.cap_s, demand.e2e_s
        small_tau_s = demand.tau_s if needed <= SMALL_TOKENS else -math.inf
        may_end_late = e2e_s == math.inf
        opened: list[View] = []
        add, seen_of = opened.append, known.get
        for view in options:
            seen = seen_of(view.index)
            if seen is None or seen.version != view.version:
                seen = known[view.index] = Glance(view, self._stretch(view, now), now)
            if (  # the cheapest answer first
                (idle_will_do and seen.idle)
                or (
                    seen.small_stretched_s <= small_tau_s
                    and needed <= seen.room_tokens
                    and (own_s := prompt * seen.small_prompt_s + seen.small_begin_s) <= cap_s
                    and (may_end_late or own_s + output * seen.small_tau_s <= e2e_s)
                )
                or seen.clear(demand, now)
                or not self.obstacle(entry, view, limits, now)
            ):
                add(view)
        return opened

    def _demand(self, entry: Entry, limits: Limits, now: float) -> Demand:
        """What is clearly little enough of everything."""
        slo, margin, share = entry.slo, self._margin, limits.share
        waited_s = now - entry.request.arrival_s
        tightest = entry.urgent and (slo.ttft_s or math.inf) <= limits.ttft_s
        tau_limit_s = margin * limits.tpot_s * (1.0 if tightest else self._headroom)
        cap_s = math.inf if tightest else self._protect * limits.ttft_s
        e2e_s = math.inf
        if entry.urgent and slo.ttft_s is not None:
            cap_s = min(cap_s, margin * slo.ttft_s - waited_s)
        if entry.urgent and slo.e2e_s is not None:
            e2e_s = margin * slo.e2e_s - waited_s
        return Demand(entry, share * tau_limit_s, 1.0 - share, cap_s, e2e_s)

    def obstacle(
        self,
        entry: Entry,
        view: BackendView,
        limits: Limits,
        now: float,
        *,
        aged: bool = False,
        last: bool = False,
        relief: Relief = NO_RELIEF,
    ) -> str:
        """Why this backend may not take it now; empty if it may."""
        margin = 1.0 if last else self._margin
        request, cost = entry.request, view.cost
        prompt, output = request.prompt_tokens, max(request.forecast.mean_tokens, 1.0)
        held = view.in_flight - relief.seqs
        context = view.context_tokens - relief.context_tokens
        if held > 0 and not _has_room(view, held, context, prompt + 0.5 * output):
            return "no KV room or no free sequence"
        alone = cost.step_s + cost.seq_s + cost.context_s * (prompt + 0.5 * output)
        tau = alone + cost.seq_s * held + cost.context_s * context
        tightest = entry.urgent and (entry.slo.ttft_s or math.inf) <= limits.ttft_s
        tpot_limit_s = (self._margin if held > 0 else margin) * limits.tpot_s
        if not tightest and not aged:
            tpot_limit_s *= self._headroom
        tpot_limit_s = limits.share * tpot_limit_s + (1.0 - limits.share) * alone
        if (held > 0 or entry.urgent) and tau * self._stretch(view, now) > tpot_limit_s:
            return "tokens would come slower than the tightest TPOT target in use allows"
        fresh = prompt * (1.0 - _hit_ratio(view))
        own = cost.prompt_s(prompt, prompt - fresh) + (fresh / view.chunk_tokens + 1.0) * tau
        backlog = max(prefill_backlog_s(view, now) - relief.prefill_s, 0.0)
        if aged:
            return "" if backlog <= _AGED_BACKLOG_S else "busy with prompts"
        if not tightest and held > 0 and backlog + own > self._protect * limits.ttft_s:
            return "its prompt would keep requests of a tighter class waiting"
        ttft = now - request.arrival_s + backlog + own
        if not entry.urgent or _in_time(entry.slo, ttft, ttft + output * tau, margin):
            return ""
        return "it would miss its own target there"

    def admits(
        self,
        entry: Entry,
        view: BackendView,
        limits: Limits,
        now: float,
        *,
        relief: Relief = NO_RELIEF,
    ) -> bool:
        """Whether this backend may take it now."""
        return not self.obstacle(entry, view, limits, now, relief=relief)

    def soonest(self, options: Sequence[View]) -> View:
        """Whom to wait for when none is open: the one with most of its KV free."""
        return min(options, key=lambda b: (b.context_tokens / b.kv_capacity_tokens, b.index))

    def _stretch(self, view: BackendView, now: float) -> float:
        known = self._busy.get(view.index)
        if known is None:
            return 1.0
        share = known[0] * math.exp((known[1] - now) / _MEMORY_S) / _MEMORY_S
        return 1.0 / (1.0 - min(share, _MOST_SHARE))


def _has_room(view: BackendView, held: int, context: float, needed: float) -> bool:
    if held >= view.max_num_seqs:
        return False
    return context + needed <= KV_LIMIT * view.kv_capacity_tokens


def _hit_ratio(view: BackendView) -> float:
    signals = view.signals
    if signals is None or signals.prefix_hit_ratio is None:
        return 0.0
    return min(max(signals.prefix_hit_ratio, 0.0), 0.95)


def _in_time(slo: Slo, ttft_s: float, e2e_s: float, margin: float) -> bool:
    if slo.ttft_s is not None and ttft_s > margin * slo.ttft_s:
        return False
    return slo.e2e_s is None or e2e_s <= margin * slo.e2e_s
