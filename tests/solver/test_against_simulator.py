"""The planner's figures against the simulator, which knows nothing of its formulas."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.config.load import MotleyConfig, load_config
from simulator.options import ReplayOptions
from simulator.run import run_policy
from simulator.summary import summarize
from simulator.traces.columns import Trace
from simulator.workload import TraceSpec, build_trace
from solver.assemble import build_problem
from solver.options import Limits, Weights
from solver.routing import route
from solver.stock import stock_of
from solver.workload import Workload, build_workload
from solver.worth import worth

DELAY_ONLY = Weights(cost=0.0, switching=0.0)
EXACT = ReplayOptions(model_error=0.0)


def _config(*backends: dict[str, object]) -> MotleyConfig:
    model = {"model": "llama-3.1-8b"}
    return load_config({"backends": [{**one, **model} for one in backends]})


def _traffic(rate: float) -> tuple[Trace, Workload]:
    spec = TraceSpec("azure-conv-like", arrivals="poisson", rate_per_s=rate, duration_s=600.0)
    trace, _ = build_trace(spec, seed=0)
    return trace, build_workload(trace.records(), default_model="llama-3.1-8b")


def _simulated_e2e_s(trace: Trace, config: MotleyConfig) -> float:
    mean = summarize(run_policy(trace, config, "motley", EXACT))["e2e_s"]["mean"]
    return float(mean)


@pytest.mark.parametrize("rate", [2.0, 5.0, 8.0])
def test_the_mean_delay_of_one_engine_is_as_planned(rate: float) -> None:
    """Little's law: requests in the system over the rate is the mean E2E."""
    config = _config({"gpu": "a100-80"})
    trace, workload = _traffic(rate)
    problem = build_problem(workload, stock_of(config.fleet, movable=False), Limits(), tiered=False)
    counts = problem.running[[column.base for column in problem.columns]]
    routing, _ = route(problem, counts, DELAY_ONLY, soft=True)
    planned_s = routing.objective / workload.rate_per_s
    assert planned_s == pytest.approx(_simulated_e2e_s(trace, config), rel=0.25)


def test_what_a_replica_is_worth_orders_the_groups_as_simulation_does() -> None:
    config = _config(
        {"gpu": "a100-80", "count": 2},
        {"gpu": "v100-32", "count": 2},
        {"gpu": "t4", "count": 3, "tensor_parallel": 2},
    )
    trace, workload = _traffic(14.0)
    now = _simulated_e2e_s(trace, config)

    def without(group: str) -> float:
        members = [spec for spec in config.fleet.backends if spec.group == group]
        left = tuple(spec for spec in config.fleet.backends if spec is not members[-1])
        return _simulated_e2e_s(trace, replace(config, fleet=replace(config.fleet, backends=left)))

    valued = worth(workload, config.fleet)
    planned = {one.group: one.one_less or 0.0 for one in valued}
    simulated = {one.group: without(one.group) - now for one in valued}
    assert sorted(planned, key=planned.__getitem__) == sorted(simulated, key=simulated.__getitem__)
