"""A traffic record is a directory of files that overlap."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.domain.errors import TraceError
from simulator.traces.read import load_trace


def write(path: Path, *arrivals: float) -> None:
    rows = "\n".join(f"{at},{10 + int(at)},5" for at in arrivals)
    path.write_text(f"arrival_s,input_tokens,output_tokens\n{rows}\n")


def test_overlapping_files_are_one_trace_in_order(tmp_path: Path) -> None:
    write(tmp_path / "traffic-2.csv", 90, 104, 105)  # 90 arrived first and ended last
    write(tmp_path / "traffic-1.csv", 100, 101, 110)
    write(tmp_path / "traffic-3.csv", 120)
    (tmp_path / "traffic-4.journal").write_text("being written")
    (tmp_path / ".salt").write_text("secret")
    trace, report = load_trace(tmp_path)
    assert list(trace.arrival_s) == [0, 10, 11, 14, 15, 20, 30]
    assert list(trace.input_tokens) == [100, 110, 111, 114, 115, 120, 130]
    assert report.records == 7


def test_a_bad_line_is_counted_once(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", 1)
    (tmp_path / "b.csv").write_text("arrival_s,input_tokens,output_tokens\nx,1,1\n5,6,7\n")
    trace, report = load_trace(tmp_path)
    assert len(trace) == 2
    assert report.malformed == 1


def test_an_empty_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="holds no trace file"):
        load_trace(tmp_path)
