"""The rolling plan beside the live gateway."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence

import pytest

from router.config.planner import PlannerSection
from router.domain.fleet import BackendSpec
from router.domain.outcome import Outcome
from router.gateway.planning import Costs, Demand, Finished, Planning
from solver.planner import RollingPlanner
from telemetry.drift import Drift
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import MODEL, Gateway, chat, stream


def outcome(finished_s: float) -> Outcome:
    return Outcome(
        request_id="r",
        model=MODEL,
        slo_class="interactive",
        tenant="",
        backend="e0",
        status="completed",
        arrival_s=finished_s - 3,
        dispatched_s=finished_s - 3,
        first_token_s=finished_s - 2,
        finished_s=finished_s,
        prompt_tokens=1000,
        output_tokens=200,
        cached_tokens=None,
        max_tokens=None,
        prefilling_at_dispatch=0,
        decoding_at_dispatch=0,
        predicted_ttft_s=1.0,
        predicted_tpot_s=0.01,
        predicted_output_tokens=200.0,
    )


class Fake:
    """A planner that says what it was asked."""

    def __init__(self, costs: Costs) -> None:
        self.costs = costs
        self.failures = 0
        self.last_failure = ""
        self.thread = threading.current_thread()
        self.last = None

    def prices(
        self, demand: Sequence[Outcome], fleet: Sequence[BackendSpec], now: float
    ) -> Mapping[str, float]:
        assert self.costs(fleet[0]) is not None
        self.failures += 1
        self.last_failure = f"round {self.failures}"
        return {fleet[0].group: float(len(demand))}


def planning(gate: Gateway, demand: Demand, made: list[Fake]) -> Planning:
    def make(costs: Costs) -> Fake:
        made.append(Fake(costs))
        return made[-1]

    return Planning(gate.relay.engine, PlannerSection(), demand, make)


async def test_prices_reach_the_policy(
    engine: StartEngine, gateway: StartGateway, caplog: pytest.LogCaptureFixture
) -> None:
    gate = await gateway(await engine(chat()))
    (state,) = gate.relay.engine.dispatcher.state.backends
    demand, made = Demand(300.0), list[Fake]()
    for _ in range(3):
        demand.observe(outcome(gate.clock.now()))
    plan = planning(gate, demand, made)
    await plan.plan_once()
    assert state.price == 3.0
    await plan.plan_once()
    assert len(made) == 1
    assert made[0].thread is not threading.main_thread()
    assert caplog.text.count("this round failed, older prices stay: round") == 2


def test_demand_forgets_what_is_older_than_its_window() -> None:
    demand = Demand(10.0)
    for finished_s in (1.0, 5.0, 12.0):
        demand.observe(outcome(finished_s))
    assert [o.finished_s for o in demand.recent(14.0)] == [5.0, 12.0]
    assert [o.finished_s for o in demand.recent(100.0)] == []


async def test_the_real_planner_prices_a_loaded_fleet(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(stream(["a"])))
    demand, settings = Demand(300.0), PlannerSection()
    now = gate.clock.now()
    for n in range(3000):  # ten a second of 1000 in, 200 out: more than one card serves
        demand.observe(outcome(now - 0.1 * n))

    def make(costs: Costs) -> RollingPlanner:
        return RollingPlanner(settings, costs=costs)

    await Planning(gate.relay.engine, settings, demand, make).plan_once()
    (state,) = gate.relay.engine.dispatcher.state.backends
    assert state.price > 0


async def test_a_configured_planner_is_started(engine: StartEngine, gateway: StartGateway) -> None:
    gate = await gateway(
        await engine(chat()), planner={"enabled": True, "interval_s": 0.05, "history": None}
    )
    for _ in range(2):
        assert (await gate.post()).status_code == 200


class Scripted:
    """A planner that answers as a test says."""

    def __init__(self, *answers: Callable[[], Mapping[str, float]]) -> None:
        self.answers = list(answers)
        self.failures = 0
        self.last_failure = ""
        self.last = None

    def prices(
        self, demand: Sequence[Outcome], fleet: Sequence[BackendSpec], now: float
    ) -> Mapping[str, float]:
        return (self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])()


async def test_prices_that_are_too_old_go_out_of_force_though_the_solver_hangs(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(chat()))
    (state,) = gate.relay.engine.dispatcher.state.backends
    release = threading.Event()

    def hang() -> Mapping[str, float]:
        release.wait(20.0)
        return {}

    scripted = Scripted(lambda: {state.spec.group: 2.0}, hang)
    plan = Planning(
        gate.relay.engine, PlannerSection(interval_s=0.05), Demand(300.0), lambda _: scripted
    )
    await plan.plan_once()
    assert state.price == 2.0
    for _ in range(100):
        plan.tick()
        await asyncio.sleep(0.01)
        if state.price == 0.0:
            break
    assert state.price == 0.0
    assert plan.age_s is None
    release.set()


async def test_a_planner_that_breaks_is_counted_and_asked_again(
    engine: StartEngine, gateway: StartGateway, caplog: pytest.LogCaptureFixture
) -> None:
    gate = await gateway(await engine(chat()))
    (state,) = gate.relay.engine.dispatcher.state.backends

    def broken() -> Mapping[str, float]:
        raise ZeroDivisionError("a bug")

    scripted = Scripted(lambda: {state.spec.group: 2.0}, broken, lambda: {state.spec.group: 3.0})
    told: list[Finished] = []
    plan = Planning(
        gate.relay.engine, PlannerSection(), Demand(300.0), lambda _: scripted, told.append
    )
    await plan.plan_once()
    await plan.plan_once()
    assert state.price == 2.0
    assert plan.rounds == {"ok": 1, "failed": 1}
    assert "ZeroDivisionError: a bug" in caplog.text
    await plan.plan_once()
    assert state.price == 3.0
    assert [one.failure for one in told] == ["", "ZeroDivisionError: a bug", ""]


async def test_metrics_tell_of_rounds_and_of_the_age_of_the_prices(
    engine: StartEngine, gateway: StartGateway
) -> None:
    """What an alert reads: failed rounds, and prices that grow old or are gone."""
    gate = await gateway(
        await engine(stream(["a", "b"], usage={"usage": {"prompt_tokens": 9}})),
        planner={"enabled": True, "interval_s": 0.05, "history": None},
    )
    assert (await gate.post()).status_code == 200
    for _ in range(400):
        page = (await gate.get("/metrics")).text
        if "motley_plan_age_seconds " in page:
            break
        await asyncio.sleep(0.05)
    assert 'motley_plan_rounds_total{outcome="ok"}' in page
    assert 'motley_plan_rounds_total{outcome="failed"} 0.0' in page
    assert "motley_plan_solve_seconds " in page


async def test_expected_delay_is_held_against_what_came_of_it(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(chat()))
    demand, settings = Demand(300.0), PlannerSection()
    now = gate.clock.now()
    for n in range(300):
        demand.observe(outcome(now - 0.1 * n))

    def make(costs: Costs) -> RollingPlanner:
        return RollingPlanner(settings, costs=costs)

    plan = Planning(gate.relay.engine, settings, demand, make)
    await plan.plan_once()
    assert plan.expected_e2e_s is None
    demand.observe(outcome(gate.clock.now() + 1.0))
    await plan.plan_once()
    assert plan.actual_e2e_s == pytest.approx(3.0)
    assert plan.expected_e2e_s is not None
    assert 0.5 < plan.expected_e2e_s < 30.0


async def test_a_backend_that_leaves_or_changes_its_speed_brings_a_round_forward(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(chat()), await engine(chat()))
    dispatcher = gate.relay.engine.dispatcher
    told: list[Finished] = []
    scripted = Scripted(lambda: {})
    plan = Planning(
        gate.relay.engine,
        PlannerSection(interval_s=1000.0),
        Demand(300.0),
        lambda _: scripted,
        told.append,
    )

    async def look() -> None:
        gate.clock.ahead_s += 150.0  # events within a tenth of the period are answered together
        plan.tick()
        await asyncio.sleep(0.1)

    await look()
    assert told == []
    first, _ = dispatcher.state.backends
    dispatcher.set_health(first.spec.name, healthy=False, now=gate.clock.now())
    await look()
    assert [one.reason for one in told] == ["membership"]
    assert sum(told[0].fleet.values()) == 1
    for hook in plan.on_drift:
        hook()
    await look()
    assert [one.reason for one in told] == ["membership", "drift"]


async def test_a_drift_that_telemetry_finds_reaches_the_planner(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(
        await engine(chat()), planner={"enabled": True, "interval_s": 1000.0, "history": None}
    )
    runtime = gate.relay._rest.state.runtime
    planning = runtime.planned.planning
    now, members = gate.clock.now(), frozenset(["x"])
    planning.triggers.due(now, members)
    runtime.instruments.feedback.on_drift(Drift("x", "decode", 2.0, now, now, 2.0))
    assert planning.triggers.due(now + 200.0, members) == "drift"
