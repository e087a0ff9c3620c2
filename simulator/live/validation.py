"""A live engine and its twin on one trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from router.perf.measured import MeasuredCost
from simulator.live.client import EngineClient
from simulator.live.fit import predict_s
from simulator.live.probe import Probe, ProbeOptions, ProbeResult, Progress, joined
from simulator.live.replay import LiveReplay, LiveRun
from simulator.live.session import Measured, Target, fitted, is_busy, measure
from simulator.live.setup import EngineSetup
from simulator.live.side_by_side import Row, side_by_side
from simulator.live.twin import simulate_twin
from simulator.live.workload import Scaling, fit_trace
from simulator.results import RunResult
from simulator.traces.columns import Trace


@dataclass(frozen=True, slots=True)
class Validation:
    """A live engine beside its twin.

    Attributes:
        rows: percentile by percentile.
        live: the replays.
        twin: the simulated one.
        trace: what was replayed.
        drift_percent: how much slower the engine was in its slowest probe than in its fastest;
            ``None`` with a known iteration.
        notes: what a reader must know.
    """

    rows: tuple[Row, ...]
    live: tuple[LiveRun, ...]
    twin: RunResult
    trace: Trace
    drift_percent: float | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """What to replay.

    Attributes:
        trace: as it was recorded.
        scaling: to this engine.
        repeats: live replays.
        salt: of the prompts, see ``ProbeOptions``.
    """

    trace: Trace
    scaling: Scaling
    repeats: int = 1
    salt: int = 0


async def validate(
    client: EngineClient,
    setup: EngineSetup,
    cost: MeasuredCost,
    plan: ReplayPlan,
    progress: Progress,
) -> Validation:
    """Replay a trace against the engine and its twin, whose iteration is known.

    Raises:
        TraceError: nothing of the trace fits the engine.
        WorkloadError: nothing was served.
    """
    trace, notes = fit_trace(plan.trace, plan.scaling, setup.config, cost.iteration_model())
    live = [
        await _replay(client, setup, trace, plan, k, progress=progress) for k in range(plan.repeats)
    ]
    return _compared(setup, cost, trace, live, notes=notes)


async def measure_and_validate(
    client: EngineClient,
    target: Target,
    options: ProbeOptions,
    plan: ReplayPlan,
    progress: Progress,
) -> tuple[Measured, Validation]:
    """Probe, replay, probe, and so on: the probe's time is spread around the replays.

    Machines heat up and neighbours come and go. The twin has the engine's speed over all
    probes, and the difference between them is reported: a twin cannot be nearer than that.

    Raises:
        MotleyError: as ``measure`` and ``validate``.
    """
    part = replace(options, seconds=options.seconds / (plan.repeats + 1))
    first = await measure(client, target, part, progress)
    setup, probes = first.setup, [first.probe]
    guess = first.fit.cost.iteration_model()
    trace, notes = fit_trace(plan.trace, plan.scaling, setup.config, guess)
    live = []
    for k in range(plan.repeats):
        live.append(await _replay(client, setup, trace, plan, k, progress=progress))
        again = replace(part, seed=options.seed + k + 1, salt=options.salt + k + 1)
        probes.append(await Probe(client, setup, again).run(progress))
    everything = joined(probes)
    measured = Measured(setup, everything, fitted(everything, options.seed), await is_busy(client))
    slowness = [_slowness(measured.fit.cost, probe) for probe in probes]
    drift = 100.0 * (max(slowness) / min(slowness) - 1.0)
    return measured, _compared(
        setup, measured.fit.cost, trace, live, notes=notes, drift_percent=drift
    )


def _slowness(cost: MeasuredCost, probe: ProbeResult) -> float:
    """The median ratio of what was observed to what the whole of it says."""
    return median(o.time_s / predict_s(cost, o) for o in probe.observations)


async def _replay(
    client: EngineClient,
    setup: EngineSetup,
    trace: Trace,
    plan: ReplayPlan,
    k: int,
    *,
    progress: Progress,
) -> LiveRun:
    """Replay number ``k``."""

    def settled(done: int, total: int) -> None:
        progress(done / total, f"replay {k + 1} of {plan.repeats}: {done} of {total} answers")

    return await LiveReplay(client, trace, setup, salt=plan.salt + k, settled=settled).run()


def _compared(
    setup: EngineSetup,
    cost: MeasuredCost,
    trace: Trace,
    live: Sequence[LiveRun],
    *,
    notes: Sequence[str],
    drift_percent: float | None = None,
) -> Validation:
    twin = simulate_twin(trace, setup, cost)
    rows = side_by_side([run.result for run in live], twin)
    complaints = [note for run in live for note in _complaints(run)]
    return Validation(tuple(rows), tuple(live), twin, trace, drift_percent, (*notes, *complaints))


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
