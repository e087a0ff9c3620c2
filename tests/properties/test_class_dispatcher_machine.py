"""Any sequence of calls keeps the promises where service classes are scheduled, too.

The same machine as for the plain dispatcher, with requests of three classes and three tenants. What
differs: the queue has an order of its own, urgent requests may enter a full one and others make
room, a request may be taken back from a backend before its first token, and one whose wait would be
too long is told at once.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from router.class_dispatcher import ClassDispatcher
from router.domain.decision import Assign, Decision, Reject
from router.domain.request import LengthForecast
from router.domain.slo import Slo
from router.health.breaker import BreakerConfig
from router.perf.length import ConstantLengthPredictor
from router.queue.desk import ClassRules, Desk
from tests.fakes import ask, balance, capability, fleet_state, spec
from tests.properties.test_dispatcher_machine import (
    ASKED,
    MODELS,
    NAMES,
    QUEUE_SIZE,
    DispatcherMachine,
    MoodyPolicy,
    Queued,
)

ROOMY = capability(max_context_tokens=200_000, kv_capacity_tokens=10_000_000)
CAPABILITIES = {"short": capability(max_context_tokens=2_000)}
PATIENCE_S, AGAIN_AFTER_S = 8.0, 5.0
SLOS = {
    "interactive": Slo("interactive", ttft_s=2.0, tpot_s=0.1),
    "throughput": Slo("throughput", ttft_s=10.0, tpot_s=0.25),
    "bulk": Slo("bulk"),
}
TARGETS = st.dictionaries(
    st.sampled_from(list(SLOS)),
    st.sampled_from([Slo("x"), Slo("x", 0.5, 0.02), Slo("x", 2.0, 0.1), Slo("x", e2e_s=9.0)]),
)
CLASS = st.sampled_from(["interactive", "throughput", "bulk", "bulk", "never-heard-of"])
OF_A_QUEUE = {"queue_timeout", "slo_unattainable", "no_healthy_backend"}
"""Reasons for which a request that may wait is sent away when its time is up."""


class ClassDispatcherMachine(DispatcherMachine):
    """What is not said here is as without classes."""

    @initialize(limit=st.integers(1, 3))
    def build(self, limit: int) -> None:
        dispatcher = ClassDispatcher(
            fleet_state(
                *(spec(name, model=MODELS[name]) for name in NAMES),
                capabilities=dict.fromkeys(NAMES, ROOMY) | CAPABILITIES,
                breaker=BreakerConfig(failure_threshold=2, open_s=2.0, max_open_s=8.0),
            ),
            MoodyPolicy(limit),
            ConstantLengthPredictor(LengthForecast(100.0, 200.0)),
        )
        rules = ClassRules({"gold": 3.0}, patience_s=PATIENCE_S, aged_after_s=4.0)
        self.dispatcher: Any = dispatcher.serving(Desk(SLOS, rules, QUEUE_SIZE))
        self.taken_back: dict[str, dict[str, float]] = {}
        for backend in self.dispatcher.state.backends:
            self._joined(backend)

    @rule(
        requests=st.lists(
            st.tuples(ASKED, CLASS, st.sampled_from(["gold", "a", "b"])), min_size=1, max_size=6
        ),
        booked=st.booleans(),
    )
    def dispatch(self, requests: list[Any], booked: bool) -> None:
        for (model, prompt, limit), slo_class, tenant in requests:
            self.serial += 1
            name = f"r{self.serial}"
            self.sizes[name] = (prompt, min(100.0, limit or 100.0))
            request = ask(
                name,
                model=model,
                prompt_tokens=prompt,
                max_tokens=limit,
                arrival_s=self.now,
                slo_class=slo_class,
                tenant=tenant,
            )
            full = self.dispatcher.queued >= QUEUE_SIZE
            behind = (slo_class, model) in self.dispatcher.desk.room.lanes
            decision = self.dispatcher.dispatch(request, self.now, booked=booked)
            self.dispatcher.book()
            if isinstance(decision, Assign) and behind:
                assert decision.recalled, "nobody overtakes its own class, but by taking a place"
            if isinstance(decision, Reject):
                assert decision.reason != "queue_full" or full
                assert decision.reason not in ("shed", "queue_timeout"), "it has not waited"
            self._follow(name, decision, set())

    @rule()
    def poll(self) -> None:
        room = self.dispatcher.desk.room
        waited = {entry.request.request_id: entry for entry in room}
        decided = self.dispatcher.poll(self.now)
        assert len({request.request_id for request, _ in decided}) == len(decided)
        for request, decision in decided:
            entry = waited[request.request_id]
            queued = self.queued.pop(request.request_id)
            if isinstance(decision, Reject) and decision.reason in OF_A_QUEUE:
                assert self.now >= entry.deadline_s, "patience ended too early"
            if isinstance(decision, Reject) and decision.reason == "shed":
                assert not entry.urgent
                assert len(waited) > QUEUE_SIZE
            self._follow(request.request_id, decision, queued.tried)
        assert all(entry.deadline_s > self.now for entry in room), "patience must end"
        assert len(room) <= QUEUE_SIZE or all(entry.urgent for entry in room)

    @rule(slos=TARGETS)
    def reload(self, slos: dict[str, Slo]) -> None:
        """Other targets, and classes that come and go, while requests of them wait."""
        recipe = {"slos": {name: asdict(slo) for name, slo in slos.items()}}
        self.dispatcher.use_policy(MoodyPolicy(2), recipe, self.now)

    def _follow(self, name: str, decision: Decision, tried: set[str]) -> None:
        if isinstance(decision, Assign):
            for victim in decision.recalled:
                self._take_back(victim, decision.backend.name)
            left_s = self.taken_back.get(name, {}).get(decision.backend.name, -AGAIN_AFTER_S)
            assert self.now >= left_s + AGAIN_AFTER_S, "its engine may still be at it"
        super()._follow(name, decision, tried)

    def _take_back(self, victim: str, backend: str) -> None:
        flying = self.flying.pop(victim)
        assert not flying.prefilled, "nothing is taken from a client"
        assert flying.backend.spec.name == backend
        self.queued[victim] = Queued(self.now, flying.tried - {backend})
        times = self.taken_back.setdefault(victim, {})
        times[backend] = self.now
        assert len(times) <= 2

    @invariant()
    def nobody_is_lost(self) -> None:
        dispatcher = self.dispatcher
        assert balance(dispatcher) == 0, "I1"
        assert dispatcher.arrived == self.serial
        assert dispatcher.in_flight == len(self.flying)
        assert dispatcher.queued == len(self.queued)
        assert {e.request.request_id for e in dispatcher.desk.room} == set(self.queued)
        over = dispatcher.completed + dispatcher.failed + dispatcher.cancelled + dispatcher.rejected
        assert over == self.ended

    @invariant()
    def somebody_will_look_in_time(self) -> None:
        due_s = self.dispatcher.next_poll_s()
        assert (due_s is None) == (not self.queued)
        if due_s is not None:
            assert due_s <= min(entry.deadline_s for entry in self.dispatcher.desk.room)


TestClassDispatcher = ClassDispatcherMachine.TestCase
TestClassDispatcher.settings = settings(
    max_examples=60,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow],
)
