"""Service classes under overload: the same trace with and without scheduling of classes."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from router.config.load import MotleyConfig
from simulator.options import ReplayOptions
from simulator.results import RunResult, Status
from simulator.run import run_policy
from simulator.summary import summarize
from simulator.traces.columns import Trace
from simulator.traces.record import TraceRecord
from tests.simulator.builders import fleet_config

FLEET = (
    {"gpu": "a100-80", "count": 1},
    {"gpu": "v100-32", "count": 1},
    {"gpu": "t4", "count": 1, "tensor_parallel": 2},
)
CAPACITY_PER_S = 11.0
"""Of this fleet on this mix, by ``benchmarks.policies.scenarios.capacity_per_s``."""


def mix(load: float, seconds: float, seed: int = 1) -> Trace:
    """Poisson arrivals of three tenants: one in five requests is interactive, three are bulk."""
    draw = random.Random(seed)
    rows, now = [], 0.0
    while now < seconds:
        now += draw.expovariate(load * CAPACITY_PER_S)
        kind = draw.choices(("interactive", "throughput", "bulk"), (1, 1, 3))[0]
        prompt = min(6_000, int(draw.lognormvariate(6.6, 0.8)) + 1)
        output = min(900, int(draw.lognormvariate(4.9, 0.8)) + 1)
        tenant = draw.choice(("red", "green", "blue"))
        rows.append(TraceRecord(now, prompt, output, slo_class=kind, tenant=tenant))
    return Trace("mix").extend(rows)


def config(admission: bool, **rules: Any) -> MotleyConfig:
    if admission:
        return fleet_config(FLEET, admission={"enabled": True, **rules})
    patient = {"queue_timeout_s": 86_400, "queue_size": 1_000_000}
    return fleet_config(FLEET, reliability=patient)


def replayed(load: float, policy: str, admission: bool, **rules: Any) -> RunResult:
    return run_policy(mix(load, 120.0), config(admission, **rules), policy, ReplayOptions(seed=1))


@pytest.mark.parametrize("policy", ["least-request", "motley"])
@pytest.mark.parametrize("load", [0.9, 1.2, 3.0])
def test_interactive_requests_keep_their_targets_whatever_the_load(load: float, policy: str):
    classes = summarize(replayed(load, policy, admission=True))["classes"]
    assert classes["interactive"]["slo_attainment"] > 0.9
    assert classes["interactive"]["qoe_mean"] > 0.97


def test_where_least_request_alone_fails_all_of_them():
    classes = summarize(replayed(3.0, "least-request", admission=False))["classes"]
    assert classes["interactive"]["slo_attainment"] < 0.1
    assert classes["interactive"]["ttft_s"]["p50"] > 60.0, "it queues to death"


def test_under_overload_bulk_is_shed_and_told_when_to_return_but_never_starves():
    result = replayed(3.0, "motley", admission=True, max_wait_s={"bulk": 120.0})
    classes = summarize(result)["classes"]
    bulk = classes["bulk"]
    assert bulk["rejected"] > bulk["completed"] > 0
    assert bulk["waited_s"]["max"] <= 120.0 + 1e-9
    assert classes["interactive"]["rejected"] <= 0.02 * classes["interactive"]["arrived"]
    # While the overload lasts (the first 120 s) some bulk is served, on the share of the aged.
    records, labels = result.records, result.trace.slo_class
    served = [
        i
        for i in range(len(records))
        if labels[i] == "bulk" and 65.0 < records.dispatched_s[i] < 120.0
    ]
    assert len(served) >= 5


def test_goodput_does_not_collapse():
    def urgent_goodput(load: float, policy: str, admission: bool) -> float:
        classes = summarize(replayed(load, policy, admission=admission))["classes"]
        return float(
            classes["interactive"]["goodput_per_s"] + classes["throughput"]["goodput_per_s"]
        )

    at_capacity = urgent_goodput(1.2, "motley", True)
    assert urgent_goodput(3.0, "motley", True) > at_capacity
    assert urgent_goodput(3.0, "least-request", False) < 0.5 * at_capacity


def test_a_flooding_tenant_does_not_displace_a_light_one():
    rows = [TraceRecord(0.02 * i, 800, 100, slo_class="bulk", tenant="flood") for i in range(1500)]
    rows += [TraceRecord(3.0 * i, 800, 100, slo_class="bulk", tenant="light") for i in range(10)]
    trace = Trace("flood").extend(sorted(rows, key=lambda row: row.arrival_s))
    result = run_policy(trace, config(True), "motley", ReplayOptions(seed=1))
    waited: dict[str, list[float]] = {"flood": [], "light": []}
    for i in range(len(trace)):
        if result.records.status[i] == Status.COMPLETED:
            wait_s = result.records.dispatched_s[i] - trace.arrival_s[i]
            waited[trace.tenant[i]].append(wait_s)
    assert len(waited["light"]) == 10
    assert max(waited["light"]) < 0.2 * max(waited["flood"])


def test_retry_after_is_honest():
    """Who comes back when told finds the queue as short as was said, if nobody else came."""
    rows = [TraceRecord(0.001 * i, 2_000, 200, slo_class="throughput") for i in range(400)]
    log: list[bytes] = []
    trace = Trace("burst").extend(rows)
    result = run_policy(trace, config(True), "motley", ReplayOptions(seed=1), log=log.append)
    refused = [line for line in log if b'"slo_unattainable"' in line]
    assert refused
    retry_s = [float(line.split(b'"retry_after_s":')[1].split(b"}")[0]) for line in refused]
    sent = [t for t in result.records.dispatched_s if not math.isnan(t)]
    # Everything let in was sent within the 10 s of its class; whoever was told to come back after
    # x seconds would then have had at most 10 s of work before it.
    assert max(sent) < 10.0
    assert 1.0 <= min(retry_s) <= max(retry_s) < 60.0


def test_figures_by_class_add_up():
    summary = summarize(replayed(1.2, "motley", admission=True))
    classes = summary["classes"]
    assert list(classes) == ["interactive", "throughput", "bulk"]
    for name in ("arrived", "completed", "rejected"):
        assert sum(c[name] for c in classes.values()) == summary[name]
    assert sum(c["goodput_per_s"] for c in classes.values()) == pytest.approx(
        summary["goodput_per_s"]
    )
    assert classes["bulk"]["qoe_mean"] is None, "nobody waits for bulk with a watch"


def test_a_request_that_was_taken_back_does_not_wait_for_others_to_come():
    """The last arrival takes an engine from a bulk request, and nobody else waits."""
    fleet = ({"gpu": "t4", "count": 2, "tensor_parallel": 2},)
    patient = fleet_config(
        fleet, admission={"enabled": True}, reliability={"queue_timeout_s": 86_400}
    )
    rows = [
        *(TraceRecord(0.001 * n, 3_000, 300, slo_class="bulk") for n in range(2)),
        *(TraceRecord(0.01 + 0.001 * n, 300, 20, slo_class="interactive") for n in range(2)),
    ]
    options = ReplayOptions(seed=1, client_timeout_s=120.0)
    told = run_policy(Trace("last").extend(rows), patient, "motley", options)
    assert told.count(Status.COMPLETED) == len(rows)
    assert max(told.records.attempts) == 2, "somebody was taken back"
    assert max(told.records.finished_s) < 60.0
