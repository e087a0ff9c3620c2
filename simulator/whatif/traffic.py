"""One's own traffic: the last hours of what the gateway's recorder wrote."""

from __future__ import annotations

from pathlib import Path

from router.domain.errors import TraceError
from simulator.traces.columns import Trace
from simulator.traces.read import Window, cut, load_trace


def recorded(path: Path, last_s: float | None = None) -> tuple[Trace, str]:
    """Read a record: a directory that the gateway writes to, or any trace file.

    Args:
        path: directory or file.
        last_s: only what arrived in the last so many seconds of it.

    Returns:
        The trace in order of arrival, from 0 on, and a sentence on what was left out.

    Raises:
        TraceError: nothing there, or nothing usable.
    """
    if not path.exists():
        raise TraceError("no such file or directory", path=str(path))
    trace, report = load_trace(path)
    if last_s is None or trace.span_s <= last_s:
        return trace, report.summary()
    start_s = trace.arrival_s[-1] - last_s
    return Trace(trace.name).extend(cut(trace.records(), Window(start_s))), report.summary()
