"""The scheduler of service classes: who may go where, who waits, who is sent away at once.

Put together from ``class_room`` (order and fairness), ``gate`` (which backends are open),
``caution`` (how full they may get, by the targets missed so far), ``yardstick`` (what work costs
and how fast it drains) and ``admission`` (how long one would wait, and what those are told who may
not). ``router.class_dispatcher`` asks it.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from router.domain.decision import Reject
from router.domain.outcome import Outcome
from router.domain.request import Request
from router.domain.slo import DEFAULT_CLASS, DEFAULT_SLOS, Slo
from router.domain.state import BackendView
from router.queue.admission import Refusal, nobody_came, turned_away, would_wait_s
from router.queue.caution import Caution
from router.queue.class_room import ClassRoom, Entry
from router.queue.gate import Gate, Limits, View
from router.queue.yardstick import Drain, Yardstick

SAMPLE_ABOVE, SAMPLE_SIZE = 256, 128
_IN_USE_S = 60.0


@dataclass(frozen=True, slots=True)
class ClassRules:
    """How classes are scheduled; ``router.config.schema.AdmissionSection`` says what each does."""

    tenant_weights: Mapping[str, float] = field(default_factory=dict)
    max_wait_s: Mapping[str, float] = field(default_factory=dict)
    patience_s: float = 300.0
    aged_after_s: float = 60.0
    aged_share: float = 0.1
    margin: float = 0.8
    protect: float = 0.5
    headroom: float = 0.8
    preempt: bool = True


class Shared(Protocol):
    """What is predicted of two backends that share a request."""

    @property
    def ttft_s(self) -> float:
        """Until its first token, from now on."""

    @property
    def tpot_s(self) -> float:
        """A token."""


class Desk:
    """Keeps the queue of classes and says what may happen to each request.

    Args:
        slos: targets by class.
        rules: how to schedule.
        capacity: requests that may wait.

    Attributes:
        room: who waits.
        events: how often each thing happened, by (kind, class): ``shed``, ``recalled``,
            ``aged`` (sent on the share of the aged), ``slo_infeasible`` (no backend could keep
            its targets if it were idle) and ``unknown_class`` (served as the default one).
    """

    def __init__(self, slos: Mapping[str, Slo], rules: ClassRules, capacity: int) -> None:
        self.rules = rules
        self.room = ClassRoom(
            capacity,
            rules.tenant_weights,
            aged_after_s=rules.aged_after_s,
            aged_share=rules.aged_share,
        )
        self.gate = Gate(rules.margin, rules.protect, rules.headroom)
        self.events: Counter[tuple[str, str]] = Counter()
        self._slos = slos
        self._caution = Caution()
        self._yardstick = Yardstick()
        self._drains: defaultdict[str, Drain] = defaultdict(Drain)
        self._seen: dict[tuple[str, str], float] = {}
        self._limits: dict[str, tuple[float, Limits]] = {}
        self._turn = 0

    # -- what a request is -------------------------------------------------------------------

    def entry(
        self,
        request: Request,
        tried: frozenset[str],
        backends: Sequence[BackendView],
        now: float,
        *,
        counted: bool = True,
    ) -> Entry:
        """Look a request up: its targets, its cost, and when it must be sent at the latest.

        Args:
            request: with its forecast.
            tried: backends that failed it.
            backends: those of its model that may be used now; may be empty.
            now: the time.
            counted: whether it counts in ``events``.
        """
        slo = self.slo_of(request, counted=counted)
        self._saw(request.model, request.slo_class, slo, now)
        if not backends:
            waits_until = request.arrival_s + self._max_wait_s(request.slo_class)
            return Entry(request, tried, waits_until, slo, False, request.arrival_s, 1e-9)
        ruler = self._yardstick.of(request.model, backends, now)
        prompt, output = request.prompt_tokens, max(request.forecast.mean_tokens, 1.0)
        work_s = ruler.work_s(prompt, output)
        latest_s = ruler.latest_start_s(request, slo, self.rules.margin)
        if (
            latest_s is None
            or latest_s <= request.arrival_s
            or ruler.tpot_s(prompt, output) > (slo.tpot_s or math.inf)
        ):
            if slo.urgent and counted:
                self.events["slo_infeasible", request.slo_class] += 1
            waits_until = request.arrival_s + self._max_wait_s(request.slo_class)
            return Entry(request, tried, waits_until, slo, False, request.arrival_s, work_s)
        return Entry(request, tried, latest_s, slo, True, latest_s, work_s)

    def retarget(self, slos: Mapping[str, Slo]) -> None:
        """Other classes and targets from now on; who waits keeps those that it came with."""
        self._slos = slos
        self._limits.clear()
        self._caution.forget()
        for key in [key for key in self._seen if key[1] not in slos]:
            del self._seen[key]

    def slo_of(self, request: Request, *, counted: bool = True) -> Slo:
        """Its own targets, or those of its class for its model."""
        if request.slo is not None:
            return request.slo
        slo = self._slos.get(request.slo_class)
        if slo is None:
            self.events["unknown_class", DEFAULT_CLASS] += counted
            slo = self._slos.get(DEFAULT_CLASS, DEFAULT_SLOS[DEFAULT_CLASS])
        return slo.of_model(request.model)

    def _max_wait_s(self, slo_class: str) -> float:
        return self.rules.max_wait_s.get(slo_class, self.rules.patience_s)

    # -- where it may go ---------------------------------------------------------------------

    def open_to(
        self, entry: Entry, options: Sequence[View], now: float, *, last: bool = False
    ) -> list[View]:
        """The backends that may take it now; ``last`` if it will not be asked about again.

        Of very many every k-th is looked at, each time from the next one on; all, if none is open.
        """
        limits = self.limits(entry.request.model, now)
        aged = self.room.rank(entry, now)[0] == 0
        if len(options) > SAMPLE_ABOVE and not last:
            step = len(options) // SAMPLE_SIZE
            self._turn += 1
            some = options[self._turn % step :: step]
            opened = self.gate.open(entry, some, limits, now, aged=aged)
            if opened:
                return opened
        return self.gate.open(entry, options, limits, now, aged=aged, last=last)

    def pair_opens(self, entry: Entry, pair: Shared, now: float) -> bool:
        """Whether two backends that share a request keep its targets and those of others."""
        margin, limits = self.rules.margin, self.limits(entry.request.model, now)
        if pair.tpot_s > margin * limits.tpot_s:
            return False
        ttft_s = now - entry.request.arrival_s + pair.ttft_s
        slo = entry.slo
        if not entry.urgent:
            return True
        if slo.ttft_s is not None and ttft_s > margin * slo.ttft_s:
            return False
        e2e_s = ttft_s + max(entry.request.forecast.mean_tokens, 1.0) * pair.tpot_s
        return slo.e2e_s is None or e2e_s <= margin * slo.e2e_s

    def limits(self, model: str, now: float) -> Limits:
        """The tightest targets in use on a model."""
        known = self._limits.get(model)
        if known is not None and now - known[0] < 1.0:
            return known[1]
        tpot = ttft = math.inf
        for (name, slo_class), seen_s in list(self._seen.items()):
            if now - seen_s > _IN_USE_S:
                del self._seen[name, slo_class]
            elif name == model:
                slo = self._slos[slo_class].of_model(model)
                tpot = min(tpot, slo.tpot_s or math.inf)
                ttft = min(ttft, slo.ttft_s or math.inf)
        limits = Limits(tpot, ttft, self._caution.share(model))
        self._limits[model] = (now, limits)
        return limits

    def _saw(self, model: str, slo_class: str, slo: Slo, now: float) -> None:
        if slo_class not in self._slos:
            return
        key = (model, slo_class)
        if key not in self._seen:
            self._limits.pop(model, None)
        if slo.urgent or slo.tpot_s is not None:
            self._seen[key] = now

    # -- whether it may wait -----------------------------------------------------------------

    def admit(self, entry: Entry, backends: Sequence[BackendView], now: float) -> Reject | None:
        """Why it must not even wait; ``None`` if it may."""
        wait_s = self._wait_s(entry, backends, now)
        reason: Refusal = "slo_unattainable" if entry.urgent else "wait_too_long"
        if self.room.full and not entry.urgent:
            reason = "queue_full"
        elif wait_s <= entry.deadline_s - now:
            return None
        return turned_away(reason, entry, wait_s, len(self.room), now)

    def give_up(self, entry: Entry, backends: Sequence[BackendView], now: float) -> Reject:
        """The answer to a request that has waited as long as it may."""
        if not backends:
            return nobody_came(entry, now)
        reason: Refusal = "slo_unattainable" if entry.urgent else "queue_timeout"
        wait_s = self._wait_s(entry, backends, now)
        return turned_away(reason, entry, wait_s, len(self.room), now)

    def shed(self, entry: Entry, backends: Sequence[BackendView], now: float) -> Reject:
        """The answer to a request that gave its place in the queue to an urgent one."""
        self.events["shed", entry.request.slo_class] += 1
        wait_s = self._wait_s(entry, backends, now)
        return turned_away("shed", entry, wait_s, len(self.room), now)

    def _wait_s(self, entry: Entry, backends: Sequence[BackendView], now: float) -> float:
        """How long it would have to wait; 0 where no backend is there that could tell."""
        if not backends:
            return 0.0
        model = entry.request.model
        prior = self._yardstick.of(model, backends, now).rate
        drain = self._drains[model]
        drain.waits(now, somebody=self.room.waits_for(model))
        return would_wait_s(
            entry, self.room, drain, prior, self._slos, least_share=self.rules.aged_share
        )

    # -- what happened -----------------------------------------------------------------------

    def enter(self, entry: Entry, now: float) -> None:
        """It waits."""
        self.room.enter(entry)
        self._drains[entry.request.model].waits(now, somebody=True)

    def left(self, entry: Entry, now: float) -> None:
        """It waits no more, and was not sent."""
        model = entry.request.model
        self._drains[model].waits(now, somebody=self.room.waits_for(model))

    def settle(self, now: float) -> None:
        """Somebody who may have waited left."""
        for model, drain in self._drains.items():
            drain.waits(now, somebody=self.room.waits_for(model))

    def sent(self, entry: Entry, backend: BackendView, now: float) -> None:
        """It goes to this backend; it has left the room."""
        request = entry.request
        self.gate.sent(backend, request.prompt_tokens, now)
        waits = self.room.waits_for(request.model)
        self._drains[request.model].sent(request.slo_class, entry.work_s, now, somebody=waits)
        if waits:
            if self.room.rank(entry, now)[0] == 0:
                self.events["aged", request.slo_class] += 1
            self.room.paid(entry, now)

    def learned_room(self) -> list[tuple[tuple[str], float]]:
        """The share of the room below the tightest TPOT target, by model."""
        return [((model,), self._caution.share(model)) for model in self._caution]

    def observe(self, outcome: Outcome) -> None:
        """Whether the tokens of an answer came as fast as asked tells how full backends may get.

        Counted is whose target is the tightest in use, and one that some backend can keep.
        """
        if outcome.status != "completed":
            return
        slo, tpot_s, model = self._slos.get(outcome.slo_class), outcome.tpot_s, outcome.model
        target_s = slo.of_model(model).tpot_s if slo is not None else None
        if tpot_s is None or target_s is None or outcome.slo is not None or outcome.carried_tokens:
            return
        known, ruler = self._limits.get(model), self._yardstick.known(model)
        if known is None or ruler is None or target_s > known[1].tpot_s:
            return
        if target_s >= ruler.tpot_s(outcome.question_tokens, outcome.predicted_output_tokens):
            self._caution.learn(model, missed=tpot_s > target_s)
