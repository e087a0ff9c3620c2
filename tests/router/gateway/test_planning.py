"""The rolling plan beside the live gateway."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import pytest

from router.config.schema import PlannerSection
from router.domain.fleet import BackendSpec
from router.domain.outcome import Outcome
from router.gateway.planning import Costs, Demand, Planning
from solver.planner import RollingPlanner
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
    gate = await gateway(await engine(chat()), planner={"enabled": True, "interval_s": 0.05})
    for _ in range(2):
        assert (await gate.post()).status_code == 200
