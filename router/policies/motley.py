"""Motley's own policy: least added pain, over TTFT and E2E together, bound as late as is safe.

For request r on backend b, with prompt p (cached prefix deducted), forecast output o and its
expected square o2::

    T     = waited so far + TTFT(b, p)
    tau   = TPOT(b, p, o) * stretch(b)            stretch = 1 / (1 - share of time b prefills)
    own   = w * worth * (T / T98)^4  +  (T^2 + 2 T o tau + o2 tau^2) / E98^2
          + overshoot * P(T + length * tau > E98)
    pain  = own
          + externality * crowding(b) * 2 * theirs(b) * inflicted(b) / E98^2
          + price_weight * 2 * (T + o tau) * price(b) * engine-seconds(b) / E98^2
    inflicted(b) = p * prefill_s * decoding  +  (seq_s + context_s * (p + left)) * stretch * overlap
    theirs(b)    = mean age of the requests there  +  what they have left * tau
    crowding(b)  = TPOT(b, p, o) / TPOT of b alone

Why each term:

* The powers make it care for the tail: a second on top of ten hurts more than one on top of one.
  TTFT has the higher power because all that matters of it is not to be in the tail.
* T98 and E98 are the recent 98th percentiles of what was delivered and ``worth`` makes a tenth off
  either tail count the same (``tail_scale.py``), so nothing is tuned to a trace, model or fleet.
  ``w`` leans towards E2E, the tail that is harder to move.
* The second term of ``own`` is the expected square of E2E over the spread of lengths, not the
  square of a mean: unknown long answers are what makes the tail.
* The third is the chance of being one of the tail itself, and what that does to the percentile: a
  slow card on which a quarter of all answers would be among the slowest must not get even a few
  requests while the fast ones do well, or adding it would make P99 worse than leaving it out. Once
  the fast ones are crowded E98 has risen, the chance is small, and the slow ones help.
* ``inflicted`` is the delay of the requests already there; without it the fast cards are
  overfilled (marginal-cost routing, Bell and Stidham 1983). It is weighed by ``theirs``, the E2E
  that those are heading for: whoever is met in flight is long or late already, and a backend full
  of such should not be stalled by another prompt. ``left`` and ``overlap`` count what those in
  flight have still to come by renewal theory (``LengthForecast.residual_tokens``).
* ``crowding`` adds those still to come: in a processor-sharing queue the whole externality is
  ``1 / (1 - rho)`` times the present one, and the slow-down of the batch is the measure of that
  (the stretch is not: whoever comes next is not there for the whole of this prefill).
* A class whose targets are looser has seconds that count less (``urgency.py``): its own T and E are
  taken times its urgency, and what others inflict on it times the square of that.
* ``stretch``: while an engine prefills, decoding stands still (SGLang) or crawls (vLLM), so TPOT
  grows with the share of prefill; it is the main cost of putting long prompts on slow cards.
  The share is of the prompts sent there lately, fading over ten seconds, and at most 0.8; of an
  explanation it is in every term but ``ttft``.

Prices are only added where ``price_weight`` says so: ``benchmarks/price_ablation.py`` found no
fleet where they pay beside the externality, which sees the same crowding at once.

What is not known is inferred from what is late: a prefill that should be over and is not counts
as taking that long again, and if it is long overdue, the engine is taken to admit no more than it
holds now (``Lane.wait_s``, ``Lane._learn_kv_limit``): engines set memory aside by rules of their
own, cards get throttled.

The prefix credit is what the index holds, times the share of it that this engine's own counts of
cached tokens confirmed of late, so caches that evict early, are cold or switched off get none. An
engine whose settings have it keep no prompts (vLLM on Volta) gets none from the first request on.

Late binding: a backend whose prefill backlog exceeds ``backlog_s`` seconds, or whose KV is full,
takes nothing more; if all are so, the request waits in the router, oldest first, and goes to
whichever backend frees up: a request bound to a slow card cannot come back, and errors of the
belief cannot pile up in an engine's queue. If only some are so, and waiting for one of them would
hurt ``hold_margin`` times less than the best of the others (a very long prompt and only slow
cards free), the request waits for that one: until it is through with its prompts, until it has KV
for this one, and until those are served who wait for it already. Nobody behind it gets it first.

Ties are broken at random, near ties are not: drawn among all within 3, 10 and 30 % of the least,
four routers that do not see one another did no better (their own counts differ enough not to
herd, ``tests/simulator/test_guards.py``), and one router did no better either.

Speed: the pain of a typical request is kept per backend and recomputed when its state changes;
per decision only the two best of each group of identical hardware are scored exactly, and those
that hold the prompt's prefix; of more than ``MANY_HOLDERS`` of these (a system prompt that all
share) the two best of each group, among all and among those that hold more of it. Beyond
``SAMPLE_ABOVE`` backends every k-th is looked at, from a random start: of a group of m the best
of m / k stands in for the best, so the expected rank of the choice within its group is k; if none
of them can take the request, all are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from router.domain.explanation import Score
from router.domain.outcome import Outcome
from router.domain.protocols import Hold, Taken
from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.ask import Ask, Weights
from router.policies.context import PolicyContext
from router.policies.lane import Lane
from router.policies.lanes import Lanes
from router.policies.motley_account import Account
from router.policies.prefix_index import PrefixIndex
from router.policies.tail_scale import TailScale
from router.policies.urgency import Urgency

SAMPLE_ABOVE = 256
SAMPLE_SIZE = 128


class Motley:
    """Argmin of the added pain among the backends that can begin soon.

    Parameters: ``ttft_weight`` (w), ``externality``, ``price_weight``, ``tail_weight`` (0: the mean
    length, and the newcomer's own E2E in place of ``theirs``), ``overshoot_weight`` (of the
    third term of own), ``backlog_s``, ``hold_margin``, ``prefix_weight`` (0: the prefix cache is
    ignored).
    """

    def __init__(self, context: PolicyContext) -> None:
        self._rng = context.rng
        self._weights = Weights(
            context.param("ttft_weight", 0.15),
            context.param("externality", 1.0),
            context.param("price_weight", 0.0),
            context.param("tail_weight", 1.0),
            context.param("overshoot_weight", 1.0),
        )
        self._backlog_s = context.param("backlog_s", 0.3)
        self._hold_margin = context.param("hold_margin", 1.5)
        self._prefix_weight = context.param("prefix_weight", 1.0)
        self._scale = TailScale()
        self._index = PrefixIndex()
        self._book = Lanes(self._index, self._scale, self._weights, self._backlog_s)
        self._urgency = Urgency(context.slos)
        self._sent: dict[str, tuple[Lane, int, float, int]] = {}
        self.prefix_audit: dict[str, list[int]] = {}

    def observe(self, outcome: Outcome) -> None:
        """Keep the scales of TTFT and E2E current, and the trust in what is cached where."""
        urgency = self._urgency.of(outcome.slo_class, outcome.slo, outcome.model)
        self._scale.observe(outcome, urgency)
        self._book.scale_changed()
        lane, promised = self._over(outcome.request_id)
        found = outcome.cached_tokens if outcome.status == "completed" else None
        if lane is not None and promised and found is not None:
            lane.trust.judge(promised, found)
            audit = self.prefix_audit.setdefault(outcome.backend, [0, 0])
            audit[0] += promised
            audit[1] += min(found, promised)

    def known(self) -> dict[str, float]:
        """The scale of E2E."""
        return self._scale.known()

    def recall(self, known: Mapping[str, float]) -> None:
        """Begin with the scale of E2E that was known before a restart."""
        self._scale.recall(known)
        self._book.scale_changed()

    def lost(self, backend: str) -> None:
        """The backend left, or fell ill: whatever comes back under its name has a cold cache."""
        self._index.forget(backend)
        self._book.forget(backend)

    def choose(
        self, request: Request, candidates: Sequence[BackendView], now: float
    ) -> BackendView | Hold | None:
        """The least pain, or what to wait for."""
        return self.choose_or_queue(request, candidates, (), now)

    def choose_or_queue(
        self,
        request: Request,
        candidates: Sequence[BackendView],
        taken: Sequence[Taken],
        now: float,
    ) -> BackendView | Hold | None:
        """The least pain, or what to wait for, perhaps behind others."""
        free, later = self._book.shortlist(self._sample(candidates), request, now)
        if not free and len(candidates) > SAMPLE_ABOVE:
            free, later = self._book.shortlist(candidates, request, now)
        if not free:
            return None
        chosen, pain = self._best([(lane, 0.0) for lane in free], request, now)
        if taken:
            self._book.queue_up(later, taken, request.prompt_tokens, now)
        if later:
            awaited, later_pain = self._best(later.values(), request, now)
            if later_pain * self._hold_margin < pain:
                cached = self._cached(awaited, request)
                return Hold(awaited.view, awaited.prompt_s(request.prompt_tokens, cached))
        return chosen.view

    def dispatched(self, request: Request, backend: BackendView, now: float) -> int:
        """Remember the prompt as cached there; return the tokens that were cached before."""
        lane = self._book.lane(backend)
        promised = self._matched(backend, request)
        cached = self._credit(lane, request, promised) if promised else 0
        if request.request_id in self._sent:  # an attempt that was taken back
            self._over(request.request_id)
        urgency = self._urgency.of(request.slo_class, request.slo, request.model)
        weight = urgency * urgency
        self._sent[request.request_id] = (lane, promised, weight, lane.crowd.enter(weight))
        lane.add_prefill(request.prompt_tokens, cached, now)
        self._index.insert(
            backend.spec.name,
            request.prefix_hashes,
            request.prefix_block_tokens,
            backend.kv_capacity_tokens,
        )
        return cached

    def _over(self, request_id: str) -> tuple[Lane | None, int]:
        """It is no longer where it was sent; whose lane that was, and what was promised of it."""
        lane, promised, weight, crowd = self._sent.pop(request_id, (None, 0, 0.0, 0))
        if lane is not None:
            lane.crowd.leave(weight, crowd)
        return lane, promised

    def explain(
        self, request: Request, candidates: Sequence[BackendView], now: float
    ) -> dict[str, Score]:
        """The pain on each candidate, term by term; changes nothing."""
        urgency = self._urgency.of(request.slo_class, request.slo, request.model)
        account = Account(request, self._scale, self._weights, now, urgency)
        told: dict[str, Score] = {}
        for view in candidates:
            lane = self._book.as_now(view, now)
            cached = self._cached(lane, request)
            told[lane.name] = account.score(lane, cached, self._backlog_s)
        return told

    def hint(self, backend: BackendView, hashes: Sequence[int], block_tokens: int) -> None:
        """Remember a prompt that another replica sent there."""
        if self._prefix_weight:
            self._index.insert(backend.spec.name, hashes, block_tokens, backend.kv_capacity_tokens)

    def cached(
        self,
        backend: BackendView,
        stored: Sequence[int],
        evicted: Sequence[int],
        block_tokens: int,
    ) -> None:
        """The engine's own word on what it has cached."""
        name = backend.spec.name
        self._index.drop(name, evicted)
        for block in stored:
            self._index.insert(name, (block,), block_tokens, backend.kv_capacity_tokens)

    def _sample(self, candidates: Sequence[BackendView]) -> Sequence[BackendView]:
        """All of them, or every k-th; from a random one on, so that ties are broken at random."""
        if len(candidates) <= SAMPLE_ABOVE:
            start = int(self._rng.random() * len(candidates))
            return [*candidates[start:], *candidates[:start]]
        step = len(candidates) // SAMPLE_SIZE
        return candidates[int(self._rng.random() * step) :: step]

    def _best(
        self, lanes: Collection[tuple[Lane, float]], request: Request, now: float
    ) -> tuple[Lane, float]:
        """Of lanes and what there is to wait besides their prompts: the least pain."""
        waited_s = now - request.arrival_s
        prompt, forecast = request.prompt_tokens, request.forecast
        urgency = self._urgency.of(request.slo_class, request.slo, request.model)
        ask = Ask(prompt, forecast, waited_s, now, self._scale, self._weights, urgency)
        (best, _), least = next(iter(lanes)), math.inf
        hashes, adds = request.prefix_hashes, self._weights.add
        block_tokens, matched_tokens = request.prefix_block_tokens, self._index.matched_tokens
        for lane, besides_s in lanes:
            ask.waited_s = waited_s + besides_s
            cached = 0
            if hashes:
                matched = matched_tokens(lane.name, hashes, block_tokens)
                cached = self._credit(lane, request, matched) if matched else 0
            pain = lane.pain(ask, cached)
            if pain < least:
                best, least = lane, pain
                if adds:
                    ask.least = pain
        return best, least

    def believed_cached(self, request: Request, backend: BackendView) -> int:
        """Prompt tokens the backend probably has."""
        return self._cached(self._book.lane(backend), request)

    def _cached(self, lane: Lane, request: Request) -> int:
        """Prompt tokens the backend probably has; an engine always computes the last one."""
        matched = self._matched(lane.view, request)
        return self._credit(lane, request, matched) if matched else 0

    def _credit(self, lane: Lane, request: Request, matched: int) -> int:
        """Of the tokens that the index holds for the backend, those that it probably has."""
        computed_at_least = min(request.prompt_tokens, 1)
        credit = int(matched * self._prefix_weight * lane.trust.share)
        return min(credit, request.prompt_tokens - computed_at_least)

    def _matched(self, view: BackendView, request: Request) -> int:
        """Prompt tokens that the index holds for the backend."""
        if not request.prefix_hashes:
            return 0
        return self._index.matched_tokens(
            view.spec.name, request.prefix_hashes, request.prefix_block_tokens
        )
