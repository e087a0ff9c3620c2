"""When the placement is planned, what for, and what is kept of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from router.config.load import MotleyConfig, load_config
from router.domain.errors import SolverError
from router.domain.outcome import Outcome
from router.gateway.placement.adapter import Adapter
from router.gateway.placement.control import Placed, PlacementLoop
from router.gateway.placement.dry_run import DryRun
from router.perf.hardware import Hardware
from solver.answer import Plan
from solver.background import PlanTask, plan_apart
from solver.plan import plan_stock
from tests.router.gateway.placement.fleet import FakeFleet, spec
from tests.router.gateway.test_planning import outcome

LARGE, SMALL = "llama-3.1-8b", "llama-3.2-3b"


def in_process(task: PlanTask) -> Plan:
    return plan_stock(task.workload, task.stock, task.weights, task.limits, believed=task.believed)


def fleet_of(*running: str) -> FakeFleet:
    specs = [
        spec(f"{name}{n}", model, f"s{n}", gpu="a100-80")
        for n in range(3)
        for name, model in (("large", LARGE), ("small", SMALL))
    ]
    return FakeFleet(specs, running)


def config_of(fleet: FakeFleet, **planner: Any) -> MotleyConfig:
    entries = [
        {"name": one.name, "gpu": one.gpu, "model": one.model} for one in fleet.specs.values()
    ]
    return load_config({"backends": entries, "planner": planner})


def traffic(model: str, count: int, until_s: float = 100.0) -> list[Outcome]:
    found = []
    for n in range(count):
        one = outcome(until_s - 100.0 * n / count)
        one.model = model
        found.append(one)
    return found[::-1]


def loop_of(
    fleet: FakeFleet,
    recent: list[Outcome],
    *,
    adapter: Adapter | None = None,
    told: list[Placed] | None = None,
    make_plan: Any = in_process,
    **planner: Any,
) -> PlacementLoop:
    return PlacementLoop(
        config_of(fleet, **planner),
        adapter or fleet,
        fleet,
        lambda: recent,
        lambda: 100.0,
        listener=told.append if told is not None else None,
        make_plan=make_plan,
    )


async def test_cards_follow_the_demand() -> None:
    """Nearly all traffic is for the small model: two of the three cards go to it."""
    fleet = fleet_of("large0", "large1", "small2")
    told: list[Placed] = []
    demand = traffic(SMALL, 2500) + traffic(LARGE, 20)
    done = await loop_of(fleet, demand, told=told).place_once()
    models = sorted(state.spec.model for state in fleet.backends())
    assert models == [LARGE, SMALL, SMALL]
    assert not fleet.dark
    assert told == [done]
    assert done.outcome == "applied"
    assert done.actual_e2e_s == pytest.approx(3.0)


async def test_small_gains_are_not_worth_a_move() -> None:
    """Hysteresis: the same demand, and a fleet that must gain much before anything moves."""
    fleet = fleet_of("large0", "large1", "small2")
    demand = traffic(SMALL, 2500) + traffic(LARGE, 20)
    done = await loop_of(fleet, demand, placement={"hysteresis": 1e6}).place_once()
    assert done.failure == ""
    assert not any(entry.startswith("start") for entry in fleet.log)


async def test_a_model_that_lost_its_engine_gets_another() -> None:
    """The membership trigger: the card of the small model is gone, a large one makes room."""
    fleet = fleet_of("large0", "large1", "small2")
    fleet.states["small2"].healthy = False
    demand = traffic(LARGE, 300) + traffic(SMALL, 20)
    done = await loop_of(fleet, demand).place_once("membership")
    assert done.outcome in {"applied", "partly"}
    assert SMALL in fleet.ready_models()
    assert LARGE in fleet.ready_models()


async def test_without_traffic_nothing_moves_and_nobody_is_alarmed() -> None:
    fleet = fleet_of("large0", "large1", "small2")
    done = await loop_of(fleet, []).place_once()
    assert (done.outcome, done.failure) == ("kept", "")
    assert fleet.log == []


async def test_demand_for_a_model_that_left_is_told_and_nothing_moves() -> None:
    fleet = fleet_of("large0", "large1", "small2")
    done = await loop_of(fleet, traffic("gone", 20)).place_once()
    assert done.outcome == "failed"
    assert "gone" in done.failure
    assert fleet.log == []


async def test_a_solver_that_fails_leaves_everything_where_it_is() -> None:
    fleet = fleet_of("large0", "large1", "small2")

    def broken(task: PlanTask) -> Plan:
        raise SolverError("no plan in time")

    done = await loop_of(fleet, traffic(SMALL, 2500), make_plan=broken).place_once("drift")
    assert (done.outcome, done.failure, done.reason) == ("failed", "no plan in time", "drift")
    assert fleet.log == []


async def test_a_dry_run_writes_and_touches_nothing(tmp_path: Path) -> None:
    path = tmp_path / "placement.json"
    fleet = fleet_of("large0", "large1", "small2")
    demand = traffic(SMALL, 2500) + traffic(LARGE, 20)
    done = await loop_of(fleet, demand, adapter=DryRun(path, Hardware())).place_once()
    assert done.outcome == "written"
    document = json.loads(path.read_text())
    assert {step["kind"] for step in document["steps"]} == {"start", "stop"}
    assert document["plan"]["replicas"]
    assert fleet.log == []


async def test_a_dry_run_that_cannot_write_says_where(tmp_path: Path) -> None:
    fleet = fleet_of("large0", "small1")
    adapter = DryRun(tmp_path / "none" / "placement.json", Hardware())
    done = await loop_of(fleet, traffic(LARGE, 100), adapter=adapter).place_once()
    assert done.outcome == "failed"
    assert "cannot write" in done.failure


def test_a_process_of_its_own_plans_the_same_and_can_be_stopped() -> None:
    import asyncio

    fleet = fleet_of("large0", "large1", "small2")
    demand = traffic(SMALL, 2500) + traffic(LARGE, 20)
    task = asyncio.run(loop_of(fleet, demand)._task(demand))
    apart, here = plan_apart(task), in_process(task)
    assert {r.group: r.replicas for r in apart.replicas} == {
        r.group: r.replicas for r in here.replicas
    }
    with pytest.raises(SolverError, match="stopped"):
        plan_apart(task, stopped=lambda: True)


def test_what_could_not_work_later_is_refused_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    from router.domain.errors import ConfigError
    from router.gateway.placement import build

    fleet = fleet_of("large0")

    def check(**placement: Any) -> None:
        build.check_placement(config_of(fleet, placement=placement))

    check(adapter="dry-run")
    check(adapter="kubernetes", stock={"a100-80": 3})
    with pytest.raises(ConfigError, match=r"planner\.placement\.stock"):
        check(adapter="kubernetes")
    monkeypatch.setattr(build, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"motley-router\[kubernetes\]"):
        check(adapter="kubernetes", stock={"a100-80": 3})
