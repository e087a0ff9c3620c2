"""Traffic on disk: complete, bounded, anonymous, and there after a crash."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from router.domain.errors import ConfigError
from router.domain.request import Request
from simulator.traces.read import stream_trace
from telemetry import recorder as recorder_module
from telemetry.record_rows import MOST_HASHES, RecordRow, RowMaker
from telemetry.recorder import Recorder, RecorderLimits
from tests.telemetry.tiny_engine import outcome

pq = pytest.importorskip("pyarrow.parquet")

EPOCH_S = 1_795_209_000.0
ROWS = RowMaker(salt=b"pepper", policy="motley", epoch_s=EPOCH_S)
REQUEST = Request(
    "r-1",
    "m",
    arrival_s=5.0,
    prompt_tokens=100,
    max_tokens=64,
    tenant="acme",
    session="s-9",
    prefix_hashes=(11, 2**64 - 1),
    prefix_block_tokens=16,
)
DONE = dataclasses.replace(
    outcome(dispatched_s=5.5, first_s=6.0, finished_s=9.0, prompt=120, output=50, cached=32),
    arrival_s=5.0,
)


def recorder(path: Path, **limits: float) -> Recorder:
    return Recorder(path, ROWS, RecorderLimits(**limits))  # type: ignore[arg-type]


def rows(path: Path) -> list[dict]:
    return [
        row for file in sorted(path.glob("*.parquet")) for row in pq.read_table(file).to_pylist()
    ]


def test_a_request_becomes_a_row_of_facts(tmp_path: Path) -> None:
    written = recorder(tmp_path)
    written.finished(REQUEST, DONE, attempts=2, finish_reason="stop")
    written.close(10.0)
    (row,) = rows(tmp_path)
    tenant, session = row.pop("tenant"), row.pop("session")
    assert row == {
        "arrival_s": EPOCH_S + 5.0,
        "input_tokens": 120,
        "output_tokens": 50,
        "max_tokens": 64,
        "model": "m",
        "class": "interactive",
        "prefix_hashes": [11, 2**63 - 1],
        "prefix_block_tokens": 16,
        "request_id": "r-1",
        "policy": "motley",
        "status": "completed",
        "backend": "b",
        "attempts": 2,
        "carried_tokens": 0,
        "finish_reason": "stop",
        "cached_tokens": 32,
        "dispatched_s": EPOCH_S + 5.5,
        "first_token_s": EPOCH_S + 6.0,
        "finished_s": EPOCH_S + 9.0,
        "predicted_ttft_s": 0.1,
        "predicted_tpot_s": 0.02,
        "predicted_output_tokens": 50.0,
    }
    assert len(tenant) == len(session) == 16
    assert written.recorded == 1


def test_who_asked_is_a_keyed_hash(tmp_path: Path) -> None:
    same = RowMaker(salt=b"pepper", policy="p", epoch_s=0.0)
    other = RowMaker(salt=b"salt", policy="p", epoch_s=0.0)
    assert same.anonymous("acme") == ROWS.anonymous("acme") != other.anonymous("acme")
    assert ROWS.anonymous("") == ""
    written = recorder(tmp_path)
    written.finished(REQUEST, DONE)
    written.close(10.0)
    (file,) = tmp_path.iterdir()
    assert b"acme" not in file.read_bytes()
    assert b"s-9" not in file.read_bytes()


def test_rejected_requests_are_there_and_were_not_answered(tmp_path: Path) -> None:
    written = recorder(tmp_path)
    written.rejected(REQUEST, "queue_full", 7.0)
    written.close(10.0)
    (row,) = rows(tmp_path)
    assert (row["status"], row["output_tokens"]) == ("rejected:queue_full", 0)
    assert row["backend"] == ""
    assert row["finished_s"] == EPOCH_S + 7.0


def test_predictions_that_were_not_made_are_empty(tmp_path: Path) -> None:
    row = ROWS.finished(
        REQUEST, dataclasses.replace(DONE, predicted_ttft_s=math.nan, predicted_tpot_s=math.inf), 1
    )
    assert (row.predicted_ttft_s, row.predicted_tpot_s) == (None, None)


def test_a_prompt_of_a_million_blocks_is_kept_to_the_first(tmp_path: Path) -> None:
    long = dataclasses.replace(REQUEST, prefix_hashes=tuple(range(10 * MOST_HASHES)))
    assert len(ROWS.unserved(long, "rejected:x", 0.0).prefix_hashes) == MOST_HASHES


@pytest.mark.parametrize("pyarrow", [True, False])
def test_requests_stand_in_the_order_they_came_not_in_that_they_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pyarrow: bool
) -> None:
    if not pyarrow:
        monkeypatch.setattr("telemetry.recorder.find_spec", lambda name: None)
    written = recorder(tmp_path)
    for arrival_s in (3.0, 1.0, 2.0):
        written.finished(dataclasses.replace(REQUEST, arrival_s=arrival_s), DONE)
    written.close(10.0)
    (file,) = tmp_path.iterdir()
    records, _ = stream_trace(file)
    assert [record.arrival_s for record in records] == [0.0, 1.0, 2.0]


def test_files_rotate_by_rows_and_by_age(tmp_path: Path) -> None:
    written = recorder(tmp_path, file_rows=10, file_age_s=100.0)
    for _ in range(3):
        for _ in range(10):
            written.finished(REQUEST, DONE)
        written.flush(0.0)
    written.finished(REQUEST, DONE)
    written.flush(1.0)
    assert len(list(tmp_path.glob("*.parquet"))) == 3
    written.flush(101.0)
    assert len(list(tmp_path.glob("*.parquet"))) == 4
    assert len(rows(tmp_path)) == 31
    assert list(tmp_path.glob("*.journal")) == []


def test_the_oldest_files_go_when_there_are_too_many(tmp_path: Path) -> None:
    written = recorder(tmp_path, file_rows=1, total_bytes=1)
    for n in range(5):
        written.finished(dataclasses.replace(REQUEST, request_id=f"r-{n}"), DONE)
        written.flush(0.0)
    assert [row["request_id"] for row in rows(tmp_path)] == ["r-4"]


def test_memory_is_bounded_and_what_is_lost_is_counted(tmp_path: Path) -> None:
    written = recorder(tmp_path, pending_rows=10)
    for _ in range(25):
        written.finished(REQUEST, DONE)
    written.close(0.0)
    assert (written.recorded, dict(written.dropped)) == (10, {"backlog": 15})
    assert len(rows(tmp_path)) == 10


CRASH = """
import os, sys
from pathlib import Path
from tests.telemetry.test_recorder import DONE, REQUEST, recorder
written = recorder(Path(sys.argv[1]))
for _ in range(100):
    written.finished(REQUEST, DONE)
written.flush(0.0)
written.finished(REQUEST, DONE)
(journal,) = Path(sys.argv[1]).glob("*.journal")
with journal.open("ab") as file:
    file.write(b'{"arrival_s":1.0,"input_to')
os.kill(os.getpid(), 9)
"""


def test_a_killed_process_loses_only_what_was_not_flushed(tmp_path: Path) -> None:
    """Kill -9 in the middle of a line: the next start converts what is whole."""
    root = Path(__file__).parents[2]
    died = subprocess.run(
        [sys.executable, "-c", CRASH, str(tmp_path)], cwd=root, check=False, timeout=60
    )
    assert died.returncode == -9
    assert rows(tmp_path) == []
    recorder(tmp_path)
    assert len(rows(tmp_path)) == 100
    assert list(tmp_path.glob("*.journal")) == []


def test_the_journal_of_a_living_neighbour_is_left_alone(tmp_path: Path) -> None:
    first = recorder(tmp_path)
    first.finished(REQUEST, DONE)
    first.flush(0.0)
    second = recorder(tmp_path)
    second.finished(REQUEST, DONE)
    second.close(0.0)
    assert len(rows(tmp_path)) == 1
    first.close(0.0)
    assert len(rows(tmp_path)) == 2


def test_without_pyarrow_the_record_is_json_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("telemetry.recorder.find_spec", lambda name: None)
    written = recorder(tmp_path)
    written.finished(REQUEST, DONE)
    written.close(0.0)
    (file,) = tmp_path.glob("*.jsonl")
    assert b'"class":"interactive"' in file.read_bytes()
    assert file.read_bytes().count(b"\n") == 1


def test_a_full_disk_is_counted_and_serving_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = recorder(tmp_path)
    written.finished(REQUEST, DONE)
    written.flush(0.0)
    assert written._journal is not None
    real = written._journal.append

    def full(rows: list) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(written._journal, "append", full)
    written.finished(REQUEST, DONE)
    written.flush(1.0)
    assert written.dropped == {"disk": 1}
    assert "No space left" in written.last_error
    monkeypatch.setattr(written._journal, "append", real)
    written.finished(REQUEST, DONE)
    written.close(2.0)
    assert len(rows(tmp_path)) == 2


class TestADiskThatIsFullWhenAFileIsFinished:
    """Parquet is written at rotation: that may fail while the journal itself could be written."""

    @pytest.fixture
    def full(self, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
        """Whether the disk is full: the first half of a file fits."""
        state = [True]
        write = recorder_module.write_parquet

        def written(found: Iterable[RecordRow], path: Path) -> None:
            if state[0]:
                path.write_bytes(b"half a file")
                raise OSError(28, "No space left on device")
            write(found, path)

        monkeypatch.setattr(recorder_module, "write_parquet", written)
        return state

    def test_half_a_file_takes_no_room_and_its_rows_come_with_the_next(
        self, tmp_path: Path, full: list[bool]
    ) -> None:
        written = recorder(tmp_path)
        written.finished(REQUEST, DONE)
        written.close(10.0)
        assert "No space left" in written.last_error
        assert not list(tmp_path.glob("*.tmp"))
        assert not rows(tmp_path)
        full[0] = False
        written.finished(REQUEST, DONE)
        written.close(20.0)
        assert len(rows(tmp_path)) == written.recorded == 2, "without a restart"
        assert not list(tmp_path.glob("*.journal"))

    def test_the_oldest_files_make_room_for_it(self, tmp_path: Path, full: list[bool]) -> None:
        full[0] = False
        written = recorder(tmp_path, total_bytes=1)
        for _ in range(2):
            written.finished(REQUEST, DONE)
            written.close(10.0)
        (kept,) = tmp_path.glob("*.parquet")
        full[0] = True
        written.finished(REQUEST, DONE)
        written.close(20.0)
        assert not kept.exists(), "what could not be finished counts, too"
        assert len(list(tmp_path.glob("*.journal"))) == 1, "and nothing new is lost"


def test_a_line_torn_by_a_full_disk_does_not_spoil_the_next(tmp_path: Path) -> None:
    written = recorder(tmp_path)
    written.finished(REQUEST, DONE)
    written.flush(0.0)
    journal = written._journal
    assert journal is not None
    whole = journal._file

    class HalfFull:
        def write(self, data: bytes) -> int:
            return whole.write(data[: len(data) // 2]) or 0

    journal._file = HalfFull()  # type: ignore[assignment]
    written.finished(REQUEST, DONE)
    written.flush(0.0)
    journal._file = whole
    written.finished(REQUEST, DONE)
    written.close(0.0)
    assert written.dropped == {"disk": 1}
    assert len(rows(tmp_path)) == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot write"):
        recorder(tmp_path / "below")


def test_a_file_where_the_directory_should_be_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="traffic record: cannot write to"):
        recorder(tmp_path / "file")


async def test_run_flushes_beside_the_requests_and_closes_at_the_end(tmp_path: Path) -> None:
    class Clock:
        def now(self) -> float:
            return 0.0

    written = recorder(tmp_path)
    running = asyncio.create_task(written.run(Clock(), interval_s=0.001))
    written.finished(REQUEST, DONE)
    while not written.recorded:
        await asyncio.sleep(0.001)
    written.finished(REQUEST, DONE)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(rows(tmp_path)) == 2


def test_the_simulator_replays_a_record(tmp_path: Path) -> None:
    written = recorder(tmp_path)
    written.finished(REQUEST, DONE)
    written.finished(dataclasses.replace(REQUEST, arrival_s=7.25, session=""), DONE)
    written.rejected(REQUEST, "queue_full", 8.0)
    written.close(10.0)
    (file,) = tmp_path.glob("*.parquet")
    records, report = stream_trace(file)
    first, second = records
    assert (report.malformed, report.unanswered) == (0, 1)
    assert (first.arrival_s, second.arrival_s) == (0.0, 2.25)
    assert (first.input_tokens, first.output_tokens, first.max_tokens) == (120, 50, 64)
    assert (first.model, first.slo_class) == ("m", "interactive")
    assert first.tenant == ROWS.anonymous("acme")
    assert first.prefix_hashes == (11, 2**63 - 1)
