"""Any sequence of calls on the Dispatcher keeps its promises.

The machine below plays gateway and fleet at once: requests come, engines answer, fail, are
drained, leave and come back, and time passes. Beside the dispatcher it keeps a plain model of what
must be true, and compares after every step: the balance (I1), every count (I2), no backend twice
for one request (I8), a bounded queue, honoured timeouts, growing versions, one probe at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from router.domain.decision import Assign, Decision, Reject, Wait
from router.domain.protocols import Hold, Taken
from router.domain.request import Request
from router.domain.state import BackendView, EngineSignals
from router.fleet_state.backend import BackendState
from router.health.breaker import BreakerConfig
from tests.fakes import MODEL, LimitPolicy, ask, balance, capability, make_dispatcher, spec

OTHER = "qwen2.5-7b"
LONG_TOKENS = 1_500
QUEUE_SIZE = 4
QUEUE_TIMEOUT_S = 8.0
NAMES = ("a", "b", "c", "short")
CAPABILITIES = {"short": capability(max_context_tokens=2_000)}
MODELS = {"a": MODEL, "b": MODEL, "short": MODEL, "c": OTHER}

pick = st.integers(0, 10**6)
ASKED = st.tuples(
    st.sampled_from([*[MODEL] * 6, OTHER, OTHER, "unknown"]),
    st.sampled_from([*[500] * 5, 0, 1, 1_999, 2_000, 5_000, 50_000]),
    st.sampled_from([*[None] * 4, 1, 400, 10**6]),
)
"""Model, prompt tokens, the client's limit: mostly ordinary."""


class MoodyPolicy(LimitPolicy):
    """Waits for one backend, behind others too, if the prompt is long; knows a bit of cache."""

    def choose(
        self, request: Request, candidates: Sequence[BackendView], now: float
    ) -> BackendView | Hold | None:
        favourite = candidates[0]
        if request.prompt_tokens > LONG_TOKENS and favourite.in_flight >= self.limit:
            return Hold(favourite)
        return super().choose(request, candidates, now)

    def choose_or_queue(
        self,
        request: Request,
        candidates: Sequence[BackendView],
        taken: Sequence[Taken],
        now: float,
    ) -> BackendView | Hold | None:
        if request.prompt_tokens > LONG_TOKENS:
            return Hold(taken[-1].backend, 1.0)
        return self.choose(request, candidates, now)

    def dispatched(self, request: Request, backend: BackendView, now: float) -> int:
        return cached_tokens(request.prompt_tokens)


def cached_tokens(prompt: int) -> int:
    """What the policy takes to be cached of any prompt."""
    return 100 if prompt > LONG_TOKENS else 0


@dataclass
class Flying:
    """What must be true of one request in flight."""

    backend: BackendState
    tried: set[str]
    prompt: int
    output: float
    begun: bool = False
    prefilled: bool = False
    probe: bool = False


@dataclass
class Queued:
    """What must be true of one request in the queue."""

    since_s: float
    tried: set[str] = field(default_factory=set)


class DispatcherMachine(RuleBasedStateMachine):
    """Rules are the calls; invariants are the promises."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.serial = 0
        self.flying: dict[str, Flying] = {}
        self.queued: dict[str, Queued] = {}
        self.ended = 0
        self.sizes: dict[str, tuple[int, float]] = {}
        self.members: dict[str, dict[str, bool]] = {}
        self.versions: dict[int, int] = {}
        self.states: list[BackendState] = []

    @initialize(limit=st.integers(1, 3))
    def build(self, limit: int) -> None:
        self.dispatcher = make_dispatcher(
            *(spec(name, model=MODELS[name]) for name in NAMES),
            policy=MoodyPolicy(limit),
            capabilities=CAPABILITIES,
            breaker=BreakerConfig(failure_threshold=2, open_s=2.0, max_open_s=8.0),
            queue_size=QUEUE_SIZE,
            queue_timeout_s=QUEUE_TIMEOUT_S,
        )
        for backend in self.dispatcher.state.backends:
            self._joined(backend)

    # -- what comes in -----------------------------------------------------------------------

    @rule(requests=st.lists(ASKED, min_size=1, max_size=4), booked=st.booleans())
    def dispatch(self, requests: list[tuple[str, int, int | None]], booked: bool) -> None:
        for model, prompt, limit in requests:
            self.serial += 1
            name = f"r{self.serial}"
            self.sizes[name] = (prompt, min(100.0, limit or 100.0))
            request = ask(
                name, model=model, prompt_tokens=prompt, max_tokens=limit, arrival_s=self.now
            )
            decision = self.dispatcher.dispatch(request, self.now, booked=booked)
            self.dispatcher.book()
            self._follow(name, decision, set())

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 3.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    # -- what becomes of it ------------------------------------------------------------------

    @precondition(lambda self: self.flying)
    @rule(which=pick)
    def first_token(self, which: int) -> None:
        name = self._one(self.flying, which)
        self.dispatcher.first_token(name, self.now)
        flying = self.flying[name]
        flying.begun = flying.prefilled = True
        flying.probe = False

    @precondition(lambda self: self.flying)
    @rule(which=pick)
    def presume_first_token(self, which: int) -> None:
        name = self._one(self.flying, which)
        self.dispatcher.presume_first_token(name, self.now)
        self.flying[name].prefilled = True

    @precondition(lambda self: self.flying)
    @rule(which=pick, tokens=st.integers(0, 500))
    def complete(self, which: int, tokens: int) -> None:
        name = self._one(self.flying, which)
        flying = self.flying.pop(name)
        told = self.dispatcher.complete(name, self.now, output_tokens=tokens)
        assert told.backend == flying.backend.spec.name
        assert (told.first_token_s is not None) == flying.begun
        times = [told.arrival_s, told.dispatched_s, told.first_token_s, told.finished_s]
        known = [t for t in times if t is not None]
        assert known == sorted(known), "I4"
        self.ended += 1

    @precondition(lambda self: self.flying)
    @rule(which=pick, how=st.sampled_from(["fail", "busy", "refuse"]))
    def end_badly(self, which: int, how: str) -> None:
        name = self._one(self.flying, which)
        del self.flying[name]
        if how == "refuse":
            self.dispatcher.refuse(name, self.now)
        else:
            self.dispatcher.fail(name, self.now, backpressure=how == "busy")
        self.ended += 1

    @precondition(lambda self: self._unbegun())
    @rule(which=pick, busy=st.booleans())
    def redispatch(self, which: int, busy: bool) -> None:
        name = self._one(self._unbegun(), which)
        flying = self.flying.pop(name)
        decision = self.dispatcher.redispatch(name, self.now, backpressure=busy)
        self._follow(name, decision, flying.tried)

    @precondition(lambda self: self.flying or self.queued)
    @rule(which=pick)
    def cancel(self, which: int) -> None:
        name = self._one({**self.flying, **self.queued}, which)
        self.dispatcher.cancel(name, self.now)
        self.flying.pop(name, None)
        self.queued.pop(name, None)
        self.ended += 1

    @rule()
    def poll(self) -> None:
        order = list(self.queued)
        decided = self.dispatcher.poll(self.now)
        names = [request.request_id for request, _ in decided]
        assert names == [n for n in order if n in names], "first in, first out"
        for request, decision in decided:
            waited = self.queued.pop(request.request_id)
            if isinstance(decision, Reject) and decision.reason == "queue_timeout":
                assert self.now >= waited.since_s + QUEUE_TIMEOUT_S, "patience ended too early"
            self._follow(request.request_id, decision, waited.tried)
        overdue = [n for n, q in self.queued.items() if self.now >= q.since_s + QUEUE_TIMEOUT_S]
        assert not overdue, "patience must end"

    # -- what happens to the fleet -----------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), running=st.integers(0, 9), usage=st.floats(0.0, 1.0))
    def scrape(self, name: str, running: int, usage: float) -> None:
        signals = EngineSignals(self.now, running=running, kv_usage=usage)
        self.dispatcher.scrape(name, signals, self.now)

    @rule(name=st.sampled_from(NAMES), factor=st.sampled_from([0.5, 1.0, 4.0]))
    def correct(self, name: str, factor: float) -> None:
        self.dispatcher.correct(name, prefill=factor, decode=1 / factor, now=self.now)

    @rule(price=st.floats(0.0, 10.0))
    def set_prices(self, price: float) -> None:
        self.dispatcher.set_prices({f"a100-80/vllm/{MODEL}": price}, self.now)

    @precondition(lambda self: self.flying)
    @rule(which=pick)
    def crash(self, which: int) -> None:
        """Everything that has not begun on one backend fails at once and is tried elsewhere."""
        backend = self.flying[self._one(self.flying, which)].backend
        lost = [n for n, f in self._unbegun().items() if f.backend is backend]
        for name in lost:
            flying = self.flying.pop(name)
            self._follow(name, self.dispatcher.redispatch(name, self.now), flying.tried)

    @precondition(lambda self: self.members)
    @rule(which=pick, change=st.sampled_from(["ill", "well", "well", "drain", "resume", "remove"]))
    def change_member(self, which: int, change: str) -> None:
        name = self._one(self.members, which)
        if change == "remove":
            self.dispatcher.remove_backend(name, self.now)
            del self.members[name]
        elif change == "drain":
            self.dispatcher.drain(name, self.now)
            self.members[name]["draining"] = True
        elif change == "resume":
            self.dispatcher.resume(name, self.now)
            self.members[name]["draining"] = False
        else:
            healthy = change == "well"
            self.dispatcher.set_health(name, healthy=healthy, now=self.now)
            self.members[name]["healthy"] = healthy

    @precondition(lambda self: len(self.members) < len(NAMES))
    @rule()
    def join(self) -> None:
        for name in NAMES:
            if name not in self.members:
                self.dispatcher.add_backend(spec(name, model=MODELS[name]), self.now)
                self._joined(self.dispatcher.state.get(name))

    # -- the promises ------------------------------------------------------------------------

    @invariant()
    def nobody_is_lost(self) -> None:
        dispatcher = self.dispatcher
        assert balance(dispatcher) == 0, "I1"
        assert dispatcher.arrived == self.serial
        assert dispatcher.in_flight == len(self.flying)
        assert dispatcher.queued == len(self.queued) <= QUEUE_SIZE
        over = dispatcher.completed + dispatcher.failed + dispatcher.cancelled + dispatcher.rejected
        assert over == self.ended

    @invariant()
    def every_backend_counts_right(self) -> None:
        for backend in self.states:
            here = [f for f in self.flying.values() if f.backend is backend]
            waiting = [f for f in here if not f.prefilled]
            assert backend.in_flight == len(here), "I2"
            assert backend.prefilling == len(waiting)
            assert backend.decoding == len(here) - len(waiting)
            fresh = [f.prompt - cached_tokens(f.prompt) for f in waiting]
            assert backend.pending_prefill_tokens == sum(fresh)
            assert (backend.pending_prefill_pairs > 0) == (sum(fresh) > 0)
            context = sum(f.prompt + 0.5 * f.output for f in here)
            assert backend.context_tokens == pytest.approx(context)
            assert backend.pending_output_tokens == pytest.approx(0.5 * sum(f.output for f in here))
            if not here:
                assert backend.context_tokens == backend.pending_output_tokens == 0.0

    @invariant()
    def versions_grow(self) -> None:
        for backend in self.states:
            assert backend.version >= self.versions.get(backend.index, 0)
            self.versions[backend.index] = backend.version

    @invariant()
    def somebody_will_look_in_time(self) -> None:
        due_s = self.dispatcher.next_poll_s()
        assert (due_s is None) == (not self.queued)
        if due_s is not None:
            deadlines = [q.since_s + QUEUE_TIMEOUT_S for q in self.queued.values()]
            assert due_s <= min(deadlines)
            opening = [b.breaker.half_opens_s for b in self.dispatcher.state.backends]
            current = [s for s in opening if s > self.now]
            assert not current or due_s <= min(current)

    def teardown(self) -> None:
        """Whatever happened, everything can end, and then all counts are 0."""
        if not hasattr(self, "dispatcher"):
            return
        for _ in range(10 * QUEUE_SIZE):
            for name in list(self.flying):
                self.dispatcher.complete(name, self.now, output_tokens=1)
                del self.flying[name]
                self.ended += 1
            if not self.queued:
                break
            self.now += QUEUE_TIMEOUT_S
            self.poll()
        assert not self.queued
        self.nobody_is_lost()
        self.every_backend_counts_right()

    # -- inside ------------------------------------------------------------------------------

    def _follow(self, name: str, decision: Decision, tried: set[str]) -> None:
        match decision:
            case Assign(backend):
                self._assigned(name, backend.name, tried)
            case Wait():
                self.queued[name] = Queued(self.now, tried)
            case Reject(reason, message):
                assert message
                assert reason != "queue_full" or len(self.queued) >= QUEUE_SIZE
                self.ended += 1

    def _assigned(self, name: str, backend: str, tried: set[str]) -> None:
        assert backend not in tried, "I8"
        assert backend in self.members, "nothing is sent to one that has left"
        assert self.members[backend] == {"healthy": True, "draining": False}
        state = self.dispatcher.state.get(backend)
        probing = state.breaker.state == "half_open"
        assert state.breaker.state != "open"
        if probing:
            assert not [f for f in self.flying.values() if f.probe and f.backend is state]
        prompt, output = self.sizes[name]
        self.flying[name] = Flying(state, tried | {backend}, prompt, output, probe=probing)

    def _joined(self, backend: BackendState) -> None:
        self.members[backend.spec.name] = {"healthy": True, "draining": False}
        self.states.append(backend)

    def _unbegun(self) -> dict[str, Flying]:
        return {name: f for name, f in self.flying.items() if not f.begun}

    @staticmethod
    def _one(living: dict[str, Any], which: int) -> str:
        names = sorted(living)
        return names[which % len(names)]


TestDispatcher = DispatcherMachine.TestCase
TestDispatcher.settings = settings(
    max_examples=60,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),  # shrinking a sequence takes minutes; the printed one will do
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow],
)
