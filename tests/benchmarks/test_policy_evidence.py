"""The evidence: what a seed changes, who is in the mix of classes, how ratios become a table."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.policies.bounds import ALONE, CLAIRVOYANT, alone
from benchmarks.policies.page import write_page
from benchmarks.policies.scenarios import (
    LARGE,
    LOADS,
    MIXED,
    SLO_MIX,
    WORKLOADS,
    Scenario,
    capacity_per_s,
    config_of,
    scenarios,
    trace_of,
)
from benchmarks.policies.slo_mix import PARTS
from benchmarks.policies.tables import (
    evidence_tables,
    headroom_table,
    interval,
    log_ratios,
    middle,
    runs_of,
    to_the_best,
)
from simulator.results import latencies
from simulator.run import run_policy
from simulator.traces.columns import Trace

CONFIG = config_of("balanced", "least-request")
BOUNDS = (ALONE, CLAIRVOYANT)


def lengths(trace: Trace) -> list[tuple[int, int]]:
    return list(zip(trace.input_tokens, trace.output_tokens, strict=True))


class TestScenarios:
    def test_are_every_workload_fleet_and_load_and_a_large_fleet(self):
        found = scenarios(WORKLOADS, [*MIXED, LARGE], 100)
        assert len(found) == len(set(found)) == len(WORKLOADS) * (len(MIXED) * len(LOADS) + 1)
        sizes = [len(config_of(fleet, "motley").fleet.backends) for fleet in (*MIXED, LARGE)]
        assert min(sizes) >= 8
        assert max(sizes) == 64

    @pytest.mark.parametrize("workload", WORKLOADS)
    def test_a_seed_is_other_requests_and_the_same_seed_the_same(self, workload: str):
        scenario = Scenario(workload, "balanced", 0.5, 200)
        (one, _), (again, _), (other, _) = (trace_of(scenario, CONFIG, s) for s in (1, 1, 2))
        assert lengths(one) == lengths(again)
        assert list(one.arrival_s) == list(again.arrival_s)
        assert lengths(one) != lengths(other)

    @pytest.mark.parametrize("workload", WORKLOADS)
    def test_requests_come_at_the_share_of_capacity_that_is_said(self, workload: str):
        trace, _ = trace_of(Scenario(workload, "balanced", 0.5, 300), CONFIG, 0)
        factor = 0.33 if workload == "mooncake-prefix" else 1.0
        offered = len(trace) / trace.span_s
        assert offered == pytest.approx(0.5 * factor * capacity_per_s(CONFIG, trace), rel=0.05)


def test_the_mix_has_four_tenants_of_three_classes():
    trace, _ = trace_of(Scenario(SLO_MIX, "balanced", 0.5, 1_000), CONFIG, 3)
    tenants = Counter(trace.tenant[i] for i in range(len(trace)))
    assert tenants == {"chat": 500, "research": 200, "code": 200, "summaries": 100}
    classes = {(trace.tenant[i], trace.slo_class[i]) for i in range(len(trace))}
    assert classes == {(p.tenant, p.slo_class) for p in PARTS} | {("summaries", "bulk")}
    assert list(trace.arrival_s) == sorted(trace.arrival_s)


def result(scenario: str, seed: int, name: str, ttft: float, e2e: float) -> dict[str, Any]:
    facts = {"attainment": 0.5, "turned_away": 0.0, "p99_s": [ttft, e2e]}
    return {
        "scenario": scenario,
        "workload": SLO_MIX,
        "fleet": "balanced",
        "load": 0.5,
        "seed": seed,
        "name": name,
        "p99_s": [ttft, e2e],
        "attainment": 0.9,
        "classes": {"interactive": facts, "throughput": facts, "bulk": facts},
    }


RESULTS = [
    result("a", 0, "motley", 1.0, 10.0),
    result("a", 0, "least-request", 2.0, 40.0),
    result("a", 0, "nginx-least-conn", 4.0, 20.0),
    result("a", 1, "motley", 1.0, 10.0),
    result("a", 1, "least-request", 8.0, 40.0),
    result("a", 1, "nginx-least-conn", 4.0, 20.0),
    result("b", 0, "motley", 3.0, 30.0),
    result("b", 0, "least-request", 3.0, 30.0),
    result("b", 0, "nginx-least-conn", 2.0, 60.0),
]


class TestTables:
    def test_ratios_are_paired_by_seed_and_every_scenario_weighs_the_same(self):
        logs = log_ratios(runs_of(RESULTS), "motley", "least-request", 0)
        assert [[math.exp(x) for x in seeds] for seeds in logs] == [
            pytest.approx([1 / 2, 1 / 8]),
            pytest.approx([1.0]),
        ]
        assert middle(logs) == pytest.approx(math.sqrt(1 / 4 * 1.0))

    def test_the_best_peer_is_another_one_for_each_scenario_and_figure(self):
        runs = runs_of(RESULTS)
        assert to_the_best(runs, "motley", 0) == pytest.approx([1 / 4, 3 / 2])  # 4 and 4; 2
        assert to_the_best(runs, "motley", 1) == pytest.approx([10 / 20, 30 / 30])

    def test_the_interval_holds_the_mean_and_closes_where_nothing_differs(self):
        low, high = interval([[0.1, 0.2, 0.3], [0.2, 0.4, 0.0]])
        assert 1.0 < low < math.exp(0.2) < high < math.exp(0.4)
        assert interval([[0.5, 0.5], [0.5]]) == pytest.approx((math.exp(0.5), math.exp(0.5)))

    def test_the_page_and_the_tables_tell_of_every_policy(self, tmp_path: Path):
        told = evidence_tables(RESULTS)
        assert "| **`motley`** | 0.50 [" in told
        assert "more than 5 % worse in 1 of 2, at worst 1.50 (b)" in told
        write_page(RESULTS, tmp_path / "evidence" / "page.html")
        page = (tmp_path / "evidence" / "page.html").read_text("utf-8")
        assert page.count("<svg") == 3
        assert "nginx-least-conn" in page


class TestBounds:
    @pytest.mark.parametrize("workload", ["azure-code", "sessions"])
    def test_nobody_is_served_sooner_than_alone_on_the_fastest_card(self, workload: str):
        scenario = Scenario(workload, "balanced", 0.5, 120)
        trace, _ = trace_of(scenario, CONFIG, 1)
        ttft, e2e = alone(CONFIG, trace)
        for policy in ("motley", "least-request"):
            told = latencies(run_policy(trace, config_of("balanced", policy), policy))
            assert (told.ttft_s >= ttft - 1e-6).all()
            assert (told.e2e_s >= e2e - 1e-6).all()

    def test_the_table_says_how_often_even_the_clairvoyant_misses_the_goal(self):
        results = [
            *RESULTS,
            *(result("a", seed, name, 1.0, 5.0) for seed in (0, 1) for name in BOUNDS),
            *(result("b", 0, name, 1.0, 20.0) for name in BOUNDS),
        ]
        table = headroom_table(results)
        assert "above 0.50 of least request's in 1 of 2 scenarios" in table
