"""One's own traffic: what the gateway's recorder wrote, the file it is writing included."""

from __future__ import annotations

from pathlib import Path

from router.domain.errors import TraceError
from simulator.traces.columns import Trace
from simulator.traces.detect import reader_for
from simulator.traces.record import ReadReport, TraceRecord
from telemetry.recorder import JOURNAL, PREFIX

FINISHED = (".parquet", ".jsonl")


def recorded(path: Path, last_s: float | None = None) -> tuple[Trace, str]:
    """Read a record: a directory that the gateway writes to, or one of its files.

    A request of which nobody knows how long its answer would have been is left out.

    Args:
        path: directory or file.
        last_s: only what arrived in the last so many seconds of the record.

    Returns:
        The trace in order of arrival, from 0 on, and a sentence on what was left out.

    Raises:
        TraceError: nothing there, or nothing usable.
    """
    files = _files(path)
    report = ReadReport(path=str(path))
    records = [record for file in files for record in _usable(file, report)]
    if not records:
        raise TraceError("there is no traffic in the record yet", path=str(path))
    records.sort(key=lambda record: record.arrival_s)
    first_s, end_s = records[0].arrival_s, records[-1].arrival_s
    start_s = first_s if last_s is None else max(first_s, end_s - last_s)
    trace = Trace(path.name)
    for record in records:
        if record.arrival_s >= start_s:
            record.arrival_s -= start_s
            trace.append(record)
    return trace, report.summary()


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise TraceError("no such file or directory", path=str(path))
    names = [f for f in path.iterdir() if f.name.startswith(PREFIX) and f.stat().st_size]
    done = {f.stem for f in names if f.suffix in FINISHED}
    # A journal whose Parquet file is complete is about to be deleted.
    live = [f for f in names if f.suffix == JOURNAL and f.stem not in done]
    found = sorted([f for f in names if f.suffix in FINISHED] + live)
    if not found:
        raise TraceError("there is no traffic in the record yet", path=str(path))
    return found


def _usable(file: Path, report: ReadReport) -> list[TraceRecord]:
    _, reader = reader_for(file, "jsonl" if file.suffix == JOURNAL else None)
    kept: list[TraceRecord] = []
    for _, record in reader(file, report):
        if record.output_tokens:
            kept.append(record)
        else:
            report.unanswered += 1
    return kept
