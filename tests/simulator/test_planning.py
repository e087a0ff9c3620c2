"""The rolling planner in a replay: asked as the gateway asks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from router.domain.fleet import BackendSpec
from router.domain.outcome import Outcome
from simulator.batch import make_planner
from simulator.faults import Fault
from simulator.options import ReplayOptions
from simulator.run import build_replay
from solver.planner import RollingPlanner
from tests.simulator.builders import fleet_config, make_trace

TWO = [{"gpu": "a100-80", "count": 2}]
OPTIONS = ReplayOptions(model_error=0.0, plan=True)


@dataclass
class Noting:
    """Notes when it was asked, and for how many backends."""

    asked: list[tuple[float, int]] = field(default_factory=list)

    def prices(
        self, demand: Sequence[Outcome], fleet: Sequence[BackendSpec], now: float
    ) -> Mapping[str, float]:
        assert demand
        self.asked.append((now, len(fleet)))
        return {}


def noted(faults: list[Fault]) -> list[tuple[float, int]]:
    trace = make_trace((0.5 * i, 200, 50) for i in range(200))
    config = fleet_config(TWO, planner={"interval_s": 30.0})
    planner = Noting()
    build_replay(
        trace,
        config,
        "least-request",
        OPTIONS,
        faults=faults,
        make_planner=lambda *_: planner,
    ).run()
    return planner.asked


def test_it_plans_on_the_period() -> None:
    assert [now for now, _ in noted([]) if now <= 95] == [30.0, 60.0, 90.0]


def test_it_plans_again_when_a_backend_is_gone_and_when_it_is_back() -> None:
    """Restarting from 40 s to 70 s: the next plan comes within seconds, for the one left."""
    asked = noted([Fault(40.0, "a100-80-0", "restart", for_s=30.0)])
    gone = next((now, count) for now, count in asked if now > 40.0)
    assert gone[0] < 60.0
    assert gone[1] == 1
    assert any(count == 2 for now, count in asked if now > 70.0)


def test_gateway_and_simulator_build_the_same_planner() -> None:
    config = fleet_config(TWO, planner={"quality_floor": {"bulk": 0.9}, "weights": {"cost": 2.0}})
    planner = make_planner(config, lambda spec: None)  # type: ignore[arg-type,return-value]
    assert isinstance(planner, RollingPlanner)
    assert planner._weights.cost == 2.0
    assert planner._limits.quality_floor == {"bulk": 0.9}
