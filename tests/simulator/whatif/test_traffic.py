"""The gateway's own record as a trace, the file that is being written included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from router.domain.errors import TraceError
from simulator.whatif.traffic import recorded


def row(arrival_s: float, output_tokens: int = 5) -> str:
    fields = {"arrival_s": arrival_s, "input_tokens": 10, "output_tokens": output_tokens}
    return json.dumps(fields | {"request_id": f"r{arrival_s}", "status": "completed"}) + "\n"


def test_files_are_joined_in_order_of_arrival(tmp_path: Path) -> None:
    (tmp_path / "traffic-00000001-7.jsonl").write_text(row(1000.0) + row(1002.0))
    (tmp_path / "traffic-00000002-7.journal").write_text(row(1005.0) + row(1001.0, 0) + row(1004.0))
    trace, note = recorded(tmp_path)
    assert list(trace.arrival_s) == [0.0, 2.0, 4.0, 5.0]
    assert "1 " in note


def test_the_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "traffic-00000001-7.journal").write_text(row(1.0) + row(2.0)[:20])
    assert len(recorded(tmp_path)[0]) == 1


def test_only_the_last_seconds(tmp_path: Path) -> None:
    lines = "".join(row(float(n)) for n in range(100))
    (tmp_path / "traffic-00000001-7.jsonl").write_text(lines)
    trace, _ = recorded(tmp_path, last_s=10.0)
    assert len(trace) == 11
    assert trace.arrival_s[0] == 0.0


def test_a_window_longer_than_the_record_adds_no_silence(tmp_path: Path) -> None:
    (tmp_path / "traffic-00000001-7.jsonl").write_text(row(1000.0) + row(1001.0) + row(1003.0))
    trace, _ = recorded(tmp_path, last_s=3600.0)
    assert list(trace.arrival_s) == [0.0, 1.0, 3.0]


def test_a_journal_that_is_also_finished_counts_once(tmp_path: Path) -> None:
    (tmp_path / "traffic-00000001-7.jsonl").write_text(row(1.0))
    (tmp_path / "traffic-00000001-7.journal").write_text(row(1.0))
    assert len(recorded(tmp_path)[0]) == 1


def test_one_file_will_do(tmp_path: Path) -> None:
    file = tmp_path / "traffic-00000001-7.jsonl"
    file.write_text(row(1.0) + row(3.0))
    assert list(recorded(file)[0].arrival_s) == [0.0, 2.0]


@pytest.mark.parametrize("make", [lambda p: None, lambda p: (p / "traffic-1.journal").touch()])
def test_an_empty_record_says_so(tmp_path: Path, make: object) -> None:
    make(tmp_path)  # type: ignore[operator]
    with pytest.raises(TraceError, match="no traffic in it yet"):
        recorded(tmp_path)


def test_a_missing_record_says_so(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no such file or directory"):
        recorded(tmp_path / "nowhere")
