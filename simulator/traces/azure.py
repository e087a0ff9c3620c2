"""Azure LLM inference traces of 2023 and 2024.

``TIMESTAMP,ContextTokens,GeneratedTokens``. 2023 writes 7-digit fractions and no zone
(``2023-11-16 18:15:46.6805900``); 2024 writes up to 6 digits, sometimes none, and ``+00:00``.
Sources: Patel et al., "Splitwise", ISCA 2024; Stojkovic et al., "DynamoLLM", HPCA 2025;
``Azure/AzurePublicDataset`` (CC-BY-4.0).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date

from simulator.traces.parsing import Numbered, find_columns, header_of, parse_each
from simulator.traces.record import ReadReport, TraceRecord
from simulator.traces.source import Line

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


def read_azure(lines: Iterator[Line], report: ReadReport) -> Iterator[Numbered]:
    """Yield the requests of an Azure CSV, arrivals in seconds on the calendar."""
    header = header_of(lines, report.path).split(",")
    when, context, generated = find_columns(header, COLUMNS, report.path)
    seconds = timestamp_parser()
    width = len(header)

    def parse(text: str) -> TraceRecord:
        cells = text.split(",")
        if len(cells) != width:
            raise ValueError(f"{len(cells)} columns instead of {width}")
        return TraceRecord(seconds(cells[when]), int(cells[context]), int(cells[generated]))

    return parse_each(lines, parse, report)


def timestamp_parser() -> Callable[[str], float]:
    """Return a parser of ``YYYY-MM-DD HH:MM:SS[.fraction][zone]`` to seconds.

    Seconds count from midnight of the first date seen: counted from 1970 a double would lose
    the seventh digit. ``datetime.strptime`` refuses seven digits and is 20 times slower. Dates
    repeat for 86,400 seconds, so the last one is kept.
    """
    last_text, last_s = "", 0.0
    first_day: int | None = None

    def seconds(text: str) -> float:
        nonlocal first_day, last_text, last_s
        text = text.strip()
        if len(text) < 19 or text[13] != ":" or text[16] != ":":
            raise ValueError(f"{text!r} is not a timestamp")
        if text[:10] != last_text:
            day = date.fromisoformat(text[:10]).toordinal()
            first_day = day if first_day is None else first_day
            last_text, last_s = text[:10], (day - first_day) * 86_400.0
        clock, offset_s = _split_zone(text[11:])
        return last_s + int(clock[:2]) * 3600 + int(clock[3:5]) * 60 + float(clock[6:]) - offset_s

    return seconds


def _split_zone(text: str) -> tuple[str, float]:
    if text.endswith("Z"):
        return text[:-1], 0.0
    if len(text) > 6 and text[-6] in "+-" and text[-3] == ":":
        sign = -1 if text[-6] == "-" else 1
        return text[:-6], sign * (int(text[-5:-3]) * 3600.0 + int(text[-2:]) * 60.0)
    return text, 0.0
