"""What the commands do with a live engine: measure it, and hold its twin against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from router.perf.measured import MeasuredCost
from simulator.live.client import EngineClient
from simulator.live.facts import EngineFacts, identify, require_idle, signals_of
from simulator.live.fit import CostFit, fit_cost
from simulator.live.probe import Probe, ProbeOptions, ProbeResult, Progress
from simulator.live.replay import LiveReplay, LiveRun
from simulator.live.setup import EngineSetup, Named, set_up
from simulator.live.side_by_side import Row, side_by_side
from simulator.live.twin import simulate_twin
from simulator.live.workload import Scaling, fit_trace
from simulator.results import RunResult
from simulator.traces.columns import Trace


@dataclass(frozen=True, slots=True)
class Target:
    """Which engine.

    Attributes:
        named: what only the user can tell of it.
        model: which of its models; the first when empty.
        force: measure it although it is busy.
    """

    named: Named
    model: str = ""
    force: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """An engine, measured.

    Attributes:
        facts: what it told.
        setup: that, completed.
        probe: what was observed.
        fit: what follows.
        disturbed: whether others used the engine at the end of the probe.
    """

    facts: EngineFacts
    setup: EngineSetup
    probe: ProbeResult
    fit: CostFit
    disturbed: bool


@dataclass(frozen=True, slots=True)
class Validation:
    """A live engine beside its twin.

    Attributes:
        rows: percentile by percentile.
        live: the replays.
        twin: the simulated one.
        trace: what was replayed.
        notes: what a reader must know.
    """

    rows: tuple[Row, ...]
    live: tuple[LiveRun, ...]
    twin: RunResult
    trace: Trace
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """What to replay.

    Attributes:
        trace: as it was recorded.
        scaling: to this engine.
        repeats: live replays.
        seed: of the prompts.
    """

    trace: Trace
    scaling: Scaling
    repeats: int = 1
    seed: int = 0


async def find(client: EngineClient, target: Target) -> tuple[EngineFacts, EngineSetup]:
    """Identify the engine and make sure that nobody else uses it.

    Raises:
        ConfigError, BusyEngineError: as ``identify``, ``set_up`` and ``require_idle``.
    """
    facts = await identify(client, target.model)
    setup = set_up(facts, target.named, client.url)
    if not target.force:
        await require_idle(client)
    return facts, setup


async def measure(
    client: EngineClient, target: Target, options: ProbeOptions, progress: Progress
) -> Measured:
    """Probe the engine and fit its iteration.

    Raises:
        MotleyError: the engine cannot be reached, is busy, or does not answer.
    """
    facts, setup = await find(client, target)
    probe = await Probe(client, setup, options).run(progress)
    fit = fit_cost(probe.observations, np.random.default_rng([options.seed, 0xF17]))
    after = await signals_of(client)
    disturbed = bool((after.running or 0) + (after.waiting or 0))
    return Measured(facts, setup, probe, fit, disturbed)


async def validate(
    client: EngineClient,
    setup: EngineSetup,
    cost: MeasuredCost,
    plan: ReplayPlan,
    progress: Callable[[float, str], object],
) -> Validation:
    """Replay a trace against the engine and its twin.

    Raises:
        TraceError: nothing of the trace fits the engine.
        WorkloadError: nothing was served.
    """
    trace, notes = fit_trace(plan.trace, plan.scaling, setup.config, cost.iteration_model())
    live = []
    for k in range(plan.repeats):

        def settled(done: int, total: int, k: int = k) -> None:
            what = f"replay {k + 1} of {plan.repeats}: {done} of {total} answers"
            progress((k + done / total) / plan.repeats, what)

        replay = LiveReplay(client, trace, setup, seed=plan.seed + k, settled=settled)
        live.append(await replay.run())
    twin = simulate_twin(trace, setup, cost, seed=plan.seed)
    rows = side_by_side([run.result for run in live], twin)
    notes += [note for run in live for note in _complaints(run)]
    return Validation(tuple(rows), tuple(live), twin, trace, tuple(notes))


def _complaints(run: LiveRun) -> list[str]:
    """What makes a live replay worth less."""
    found = [f"{count} request(s) failed live: {why}" for why, count in run.result.reasons.items()]
    if run.lengths_off:
        found.append(f"{run.lengths_off} answer(s) were not as long as asked")
    if run.late_p99_s > 0.05:
        found.append(
            f"the client itself was up to {1e3 * run.late_p99_s:.0f} ms late (P99); its machine is "
            "too slow or too busy"
        )
    return found
