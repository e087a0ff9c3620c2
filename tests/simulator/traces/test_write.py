"""What is written is read back the same, in every format."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.domain.errors import BadInputError, TraceError
from simulator.synthetic import builtin_trace
from simulator.traces.columns import Trace
from simulator.traces.read import load_trace
from simulator.traces.record import TraceRecord
from simulator.traces.stats import describe
from simulator.traces.write import write_trace

RECORDS = (
    TraceRecord(0.0, 100, 5, "m", "bulk", "t", "s", 64, (7, 2**62), 16),
    TraceRecord(1.25, 200, 7),
)


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.jsonl", "t.jsonl.gz", "t.parquet"])
def test_every_format_keeps_every_field(name: str, tmp_path: Path) -> None:
    write_trace(Trace("t").extend(RECORDS), tmp_path / name)

    read, report = load_trace(tmp_path / name, strict=True)

    assert tuple(read.records()) == RECORDS
    assert report.summary() == ""


def test_equal_traces_are_equal_bytes(tmp_path: Path) -> None:
    trace = builtin_trace("azure-conv-like", duration_s=30, seed=1)
    for name in ("a.csv.gz", "b.csv.gz"):
        write_trace(trace, tmp_path / name)

    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()


def test_a_name_that_tells_no_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"\.csv, \.jsonl"):
        write_trace(Trace("t").extend(RECORDS), tmp_path / "t.xlsx")


def test_results_of_several_policies_are_not_replayed_as_one_trace(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("arrival_s,input_tokens,output_tokens,policy\n0,1,1,a\n0,1,1,b\n")

    with pytest.raises(TraceError, match="several runs"):
        load_trace(path)


def test_statistics_of_a_trace_one_can_check_by_hand() -> None:
    """Ten a second for 60 s, then silence for 60 s, then one more."""
    rows = [TraceRecord(0.1 * i, 10, 5) for i in range(600)] + [TraceRecord(120.0, 40, 5)]
    stats = describe(Trace("t").extend(rows))

    assert stats.requests == 601
    assert stats.rate_per_s == pytest.approx(601 / 120)
    assert stats.peak_to_mean == pytest.approx(2.0)
    assert stats.dispersion[60.0] == pytest.approx(300.0)  # 600 and 0: variance 300^2 over 300
    assert (stats.input_tokens.p50, stats.input_tokens.max) == (10, 40)
    assert stats.shared_ratio is None


def test_shared_prefixes_are_counted_as_one_infinite_cache_would() -> None:
    rows = [
        TraceRecord(0.0, 64, 1, prefix_hashes=(1, 2, 3, 4), prefix_block_tokens=16),
        TraceRecord(1.0, 64, 1, prefix_hashes=(1, 2, 9, 10), prefix_block_tokens=16),
    ]

    assert describe(Trace("t").extend(rows)).shared_ratio == pytest.approx(32 / 128)
