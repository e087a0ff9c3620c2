"""The front door of the traces: one call streams any file, one call loads it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from router.domain.errors import TraceError
from simulator.traces.columns import Trace
from simulator.traces.detect import reader_for
from simulator.traces.record import ReadReport, TraceRecord, check_record


@dataclass(frozen=True, slots=True)
class Window:
    """A slice of a trace, in seconds from its first request."""

    start_s: float = 0.0
    duration_s: float | None = None

    @property
    def end_s(self) -> float:
        """Where it ends; infinite when it has no duration."""
        return float("inf") if self.duration_s is None else self.start_s + self.duration_s


WHOLE = Window()
_OUT_OF_ORDER_S = 600.0
"""How far out of order requests may stand before a slice stops reading behind its end."""


LONGEST_S = 366 * 86_400.0
"""Between two requests of one trace. A day of milliseconds taken for seconds is longer."""


def _too_far(apart_s: float) -> str:
    return (
        f"it arrives {apart_s:.4g} s from the first request, more than a year: are the times "
        "milliseconds? Then name the column arrival_ms"
    )


def stream_trace(
    path: Path | str, *, format_name: str | None = None, strict: bool = False
) -> tuple[Iterator[TraceRecord], ReadReport]:
    """Stream a trace in constant memory, arrivals counted from the first request of the file.

    Where a file is out of order, earlier ones that stand behind it are below 0. Lines that are
    malformed or carry impossible numbers are counted in the report, and named with their number;
    requests without an answer are counted apart.

    Raises:
        TraceError: the file cannot be read or is no trace; in strict mode, while iterating, at
            the first malformed line.
        UnknownNameError: ``format_name`` is no format.
    """
    path = Path(path)
    _, reader = reader_for(path, format_name)
    report = ReadReport(path=str(path), strict=strict)
    return _checked(reader(path, report), report), report


def _checked(
    numbered: Iterator[tuple[int, TraceRecord]], report: ReadReport
) -> Iterator[TraceRecord]:
    origin: float | None = None
    for line, record in numbered:
        problem = check_record(record)
        if problem is not None:
            report.bad(line, problem)
            continue
        if origin is None:
            origin = record.arrival_s
        if abs(record.arrival_s - origin) > LONGEST_S:
            report.bad(line, _too_far(record.arrival_s - origin))
            continue
        if record.output_tokens == 0:
            report.unanswered += 1
            continue
        record.arrival_s -= origin
        report.records += 1
        yield record


def load_trace(
    path: Path | str,
    *,
    format_name: str | None = None,
    strict: bool = False,
    window: Window = WHOLE,
) -> tuple[Trace, ReadReport]:
    """Load a trace, or a window of it whose arrivals are counted from the window's start.

    Raises:
        TraceError: as ``stream_trace``; also when nothing usable is in the file or the window.
        UnknownNameError: ``format_name`` is no format.
    """
    records, report = stream_trace(path, format_name=format_name, strict=strict)
    trace = Trace(name=_name_of(Path(path)))
    first = next(records, None)  # whether a file knows arrivals is known once it is open
    trace.timed = report.timed
    if first is not None:
        everything = chain((first,), records)
        trace.extend(cut(everything, window) if report.timed else everything)
    if not len(trace):
        raise TraceError(_why_empty(report, window), path=str(path))
    return trace.in_order().from_zero(), report


def cut(records: Iterator[TraceRecord], window: Window) -> Iterator[TraceRecord]:
    """Keep the records inside a window and count their arrivals from its start.

    A window from the start on begins with the earliest request, wherever in the file it stands.
    """
    start_s = window.start_s or -math.inf
    for record in records:
        if record.arrival_s >= window.end_s:
            if record.arrival_s >= window.end_s + _OUT_OF_ORDER_S:
                return
            continue
        if record.arrival_s >= start_s:
            record.arrival_s -= window.start_s
            yield record


def check_window(start_s: float, duration_s: float | None) -> Window:
    """Build a window from what a user typed.

    Raises:
        TraceError: a negative start, or a duration that is not positive.
    """
    if start_s < 0:
        raise TraceError(f"--start must be 0 or more seconds, not {start_s:g}")
    if duration_s is not None and not duration_s > 0:
        raise TraceError(f"--duration must be more than 0 seconds, not {duration_s:g}")
    return Window(start_s, duration_s)


def _name_of(path: Path) -> str:
    name = path.name.removesuffix(".gz")
    return name.rsplit(".", 1)[0] if "." in name else name


def _why_empty(report: ReadReport, window: Window) -> str:
    if report.malformed:
        first = report.messages[0] if report.messages else ""
        return f"no usable request: {report.malformed} malformed line(s). First: {first}"
    if report.records and window != WHOLE:
        end = "the end" if window.duration_s is None else f"{window.end_s:g} s"
        return (
            f"no request arrives between {window.start_s:g} s and {end} of the trace; "
            "move --start or lengthen --duration"
        )
    if report.unanswered:
        return f"no usable request: all {report.unanswered} have no answer"
    return "the trace is empty: it holds no request"
