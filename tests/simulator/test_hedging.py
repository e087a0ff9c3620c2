"""When hedging pays: where an engine stalls, and not where the fleet is merely busy."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from simulator.faults import Fault
from simulator.options import ReplayOptions
from simulator.results import RunResult, Status, latencies
from simulator.run import run_policy
from simulator.traces.columns import Trace
from simulator.traces.record import TraceRecord
from tests.simulator.builders import fleet_config

FLEET = ({"gpu": "a100-80", "count": 3},)


def run(
    rate_per_s: float, hedging: bool, faults: tuple[Fault, ...] = (), policy: str = "least-request"
) -> RunResult:
    draw, rows, now = random.Random(5), [], 0.0
    while now < 60.0:
        now += draw.expovariate(rate_per_s)
        rows.append(TraceRecord(now, int(draw.lognormvariate(6.0, 0.8)) + 1, 60))
    config = fleet_config(FLEET, hedging={"enabled": hedging})
    trace = Trace("steady").extend(rows)
    return run_policy(trace, config, policy, ReplayOptions(seed=1), faults=faults)


def worst_ttft_s(result: RunResult) -> float:
    return float(np.nanmax(latencies(result).ttft_s))


STALL = (Fault(20.0, "a100-80-1", "hang", for_s=8.0),)


def test_an_engine_that_stalls_is_not_waited_for():
    without, hedged = run(6.0, False, STALL), run(6.0, True, STALL)
    assert worst_ttft_s(without) > 6.0
    assert worst_ttft_s(hedged) < 2.0
    assert hedged.count(Status.COMPLETED) == len(hedged.records)
    (note,) = [note for note in hedged.notes if note.startswith("hedging")]
    assert " 0 of them first" not in note


def test_it_leaves_a_healthy_fleet_alone():
    (note,) = [note for note in run(6.0, True).notes if note.startswith("hedging")]
    assert note.startswith("hedging: 0 second attempt(s)"), note


def test_the_same_run_gives_the_same_bytes_and_every_count_returns_to_zero():
    first, again = run(20.0, True, STALL), run(20.0, True, STALL)
    assert first.records.finished_s.tobytes() == again.records.finished_s.tobytes()


@pytest.mark.parametrize("kind", ["kill", "hang", "error"])
def test_whatever_happens_to_either_engine_nobody_is_lost(kind: Any):
    trouble = tuple(Fault(10.0 + 7.0 * k, f"a100-80-{k % 3}", kind, for_s=4.0) for k in range(6))
    result = run(25.0, True, trouble, policy="motley")
    statuses = set(result.records.status)
    assert Status.PENDING not in statuses
    assert result.count(Status.COMPLETED) > 0.9 * len(result.records)
