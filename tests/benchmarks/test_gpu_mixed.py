"""A mixed fleet on a real GPU: what is said of it is what was measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.gpu import mixed_report
from benchmarks.gpu.mixed_plan import ALONE
from simulator.traces.read import load_trace

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "pages" / "explanation" / "a-mixed-fleet-on-a-gpu.md"
TRACE = ROOT.parent / "shared" / "data" / "traces" / "azure2023_conv.csv"
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def rows(path, head):
    """The table under this head."""
    lines = path.read_text("utf-8").splitlines()
    start = lines.index(head)
    return lines[start : lines.index("", start)]


@pytest.mark.parametrize(
    ("path", "table"),
    [
        (PAGE, mixed_report.cards_table),
        (PAGE, mixed_report.table),
        (ROOT / "README.md", mixed_report.short_table),
    ],
    ids=["engines", "runs", "readme"],
)
def test_the_tables_are_what_the_data_give(path, table):
    made = table().splitlines()
    assert rows(path, made[0]) == made


def test_every_run_is_whole_and_nothing_failed_but_what_was_left():
    told = mixed_report.data()
    assert len(told["runs"]) == 11
    for run in told["runs"]:
        columns = [run[name] for name in ("ttft_ms", "tpot_ms", "e2e_ms", "ended", "backend")]
        assert len({len(column) for column in columns}) == 1
        assert set(run["failed"]) <= {"unfinished"}
        assert ("0" in run["ended"]) == bool(run["failed"])
        if run["policy"] in {"motley", "nginx-least-conn", ALONE}:
            assert "0" not in run["ended"]


def test_the_page_names_its_source():
    assert mixed_report.source() in PAGE.read_text("utf-8").replace("\n", " ")


@pytest.mark.skipif(not TRACE.exists(), reason="the Azure trace is not in ../shared/data/traces")
def test_the_simulator_says_of_the_same_arrivals_what_is_told():
    told, trace = mixed_report.data(), load_trace(TRACE)[0]
    head = "| load | policy | TTFT P99 | TPOT P99 | E2E P99 |"
    page = {tuple(line.split(" | ")[:2]): line for line in rows(PAGE, head)}
    # Of the policies the one that stays as it is: Motley's own tells of the commit it ran at.
    policy = "nginx-least-conn"
    for load in (0.6, 0.85):
        (run,) = (r for r in told["runs"] if (r["load"], r["policy"]) == (load, policy))
        found = mixed_report.twin(told, run, trace)
        line = page[f"| {load:g}", mixed_report.NAMES[policy]]
        cells = line.removesuffix(" |").split(" | ")[2:]
        for cell, p99_s in zip(cells, mixed_report.p99s(found), strict=True):
            _, least, most = (float(n) for n in NUMBER.findall(cell))
            assert 0.99 * least <= p99_s <= 1.01 * most
