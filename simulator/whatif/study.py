"""Two worlds, the same traffic: what changes, how sure that is, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from router.config.load import MotleyConfig
from router.domain.errors import TraceError
from router.domain.fleet import Fleet
from simulator.compare import Difference, Metric, compare_with
from simulator.options import ReplayOptions
from simulator.results import RunResult, latencies
from simulator.run import run_policy
from simulator.traces.columns import Trace
from simulator.traces.transform import scale_rate
from simulator.whatif.bill import Bill, Line, Runs, bill_of, known, rate_lines
from simulator.whatif.change import Change, changed
from telemetry.learned import Learned

NOW, THEN = "now", "then"

METRICS = (
    Metric("TTFT P50", "ttft_s", 50.0),
    Metric("TTFT P99", "ttft_s", 99.0),
    Metric("TPOT P99", "tpot_s", 99.0),
    Metric("E2E P50", "e2e_s", 50.0),
    Metric("E2E P99", "e2e_s", 99.0),
    Metric("SLO attainment", "slo_met", None, better="higher"),
)

Progress = Callable[[float, str], object]
"""Told (share done, what is done now)."""


@dataclass(frozen=True, slots=True)
class Study:
    """The answer.

    Attributes:
        requests, span_s: of the traffic replayed.
        seeds: replays in each world.
        fleet_now, fleet_then: engines by kind.
        policy_now, policy_then: names.
        lines: metrics, bills: costs.
        notes: what the reader must know.
    """

    requests: int
    span_s: float
    seeds: int
    fleet_now: dict[str, int]
    fleet_then: dict[str, int]
    policy_now: str
    policy_then: str
    lines: tuple[Line, ...]
    bill_now: Bill
    bill_then: Bill
    notes: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def what_if(
    trace: Trace,
    config: MotleyConfig,
    change: Change,
    options: ReplayOptions,
    *,
    seeds: int = 3,
    learned: Learned | None = None,
    progress: Progress = lambda *_: None,
) -> Study:
    """Replay the traffic in both worlds, the same seeds and what was ``learned`` before in each.

    Raises:
        TraceError: no traffic.
        BadInputError: a change that makes no sense; see ``change.changed``.
    """
    if not len(trace):
        raise TraceError("there is no traffic to replay: nothing has been recorded yet")
    other = changed(config, change)
    then_trace = trace if change.load == 1.0 else scale_rate(trace, change.load)
    worlds = ((NOW, config, trace), (THEN, other, then_trace))
    results: dict[str, list[RunResult]] = {NOW: [], THEN: []}
    rounds = [(seed, *world) for seed in range(seeds) for world in worlds]
    for done, (seed, name, world, traffic) in enumerate(rounds):
        what = f"{'as it is' if name == NOW else 'as it would be'}, seed {seed}"

        def report(settled: int, of: int, done: int = done, what: str = what) -> None:
            progress((done + settled / max(1, of)) / len(rounds), what)

        result = run_policy(
            traffic,
            world,
            world.policy.name,
            replace(options, seed=seed),
            learned=learned,
            progress=report,
        )
        results[name].append(replace(result, policy=name))
    differences = compare_with(results[NOW] + results[THEN], NOW, METRICS)
    now, then = Runs(config, trace, results[NOW]), Runs(other, then_trace, results[THEN])
    return Study(
        requests=len(trace),
        span_s=trace.span_s,
        seeds=seeds,
        fleet_now=_kinds(config.fleet),
        fleet_then=_kinds(other.fleet),
        policy_now=config.policy.name,
        policy_then=other.policy.name,
        lines=(*(_line(d, results) for d in differences), *rate_lines(now, then)),
        bill_now=bill_of(now),
        bill_then=bill_of(then),
        notes=_notes(trace, results),
    )


def _line(difference: Difference, results: dict[str, list[RunResult]]) -> Line:
    metric = difference.metric
    return Line(
        metric.name,
        _mean(metric, results[NOW]),
        _mean(metric, results[THEN]),
        known(difference.mean),
        known(difference.low),
        known(difference.high),
        difference.verdict,
        "share" if metric.quantile is None else "s",
    )


def _mean(metric: Metric, results: Sequence[RunResult]) -> float | None:
    return known(float(np.mean([metric.of(metric.values(latencies(r))) for r in results])))


def _kinds(fleet: Fleet) -> dict[str, int]:
    kinds: dict[str, int] = {}
    for spec in fleet.backends:
        cards = f"x{spec.tensor_parallel}" if spec.tensor_parallel > 1 else ""
        kind = f"{spec.gpu}{cards}/{spec.engine}"
        kinds[kind] = kinds.get(kind, 0) + 1
    return kinds


def _notes(trace: Trace, results: dict[str, list[RunResult]]) -> tuple[str, ...]:
    notes = list(dict.fromkeys(note for rs in results.values() for r in rs for note in r.notes))
    if len(trace) < 1000:
        notes.append(f"only {len(trace)} requests: a P99 of so few is one or two requests")
    return tuple(notes)
