"""The simulated twin of a live engine: the same arrivals and lengths through the simulator."""

from __future__ import annotations

from dataclasses import replace

from router.config.load import MotleyConfig, load_config
from router.domain.fleet import BackendSpec, Fleet
from router.domain.protocols import PerfModel
from router.perf.measured import MeasuredCost
from simulator.live.setup import LIVE, EngineSetup
from simulator.options import ReplayOptions
from simulator.replica.build import make_replica
from simulator.replica.interface import Replica
from simulator.results import RunResult
from simulator.run import run_policy
from simulator.traces.columns import Trace

_POLICY = "round-robin"
"""With one backend there is nothing to choose; this one never makes a request wait."""
_ANY_FLEET = {"backends": [{"gpu": "a100-80", "model": "llama-3.1-8b"}]}


def simulate_twin(trace: Trace, setup: EngineSetup, cost: MeasuredCost) -> RunResult:
    """Replay a trace through the twin of an engine.

    The overhead of the engine's API is a network delay, half of it each way: the request reaches
    the scheduler later than the client sent it, and its tokens reach the client later than they
    were made.
    """
    truth = cost.iteration_model()

    def replica_of(_: BackendSpec, model: PerfModel) -> Replica:
        return make_replica(setup.config, model, exact=True)

    options = ReplayOptions(
        model_error=0.0,
        scrape_interval_s=0.0,
        feedback=False,
        zone_delay_s={LIVE: cost.api_s / 2},
    )
    return run_policy(
        trace,
        twin_config(setup),
        _POLICY,
        options,
        truth_of=lambda _: truth,
        replica_of=replica_of,
    )


def twin_config(setup: EngineSetup) -> MotleyConfig:
    """Settings of a fleet of this one engine."""
    stock = load_config(_ANY_FLEET)
    return replace(stock, source=LIVE, fleet=Fleet((setup.spec,)), hardware=setup.hardware)
