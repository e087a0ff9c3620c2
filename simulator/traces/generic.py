"""Motley's own trace format as CSV, JSONL or Parquet; see ``fields.py`` for the names."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from router.domain.errors import BadInputError, TraceError
from simulator.traces.azure import timestamp_parser
from simulator.traces.fields import UnknownFieldError, canonical_names, row_parser
from simulator.traces.parsing import Numbered, header_of, parse_each, shorten
from simulator.traces.record import ReadReport, TraceRecord
from simulator.traces.source import Line

_BATCH_ROWS = 4096


def read_csv(lines: Iterator[Line], report: ReadReport) -> Iterator[Numbered]:
    """Yield the requests of a CSV with a header of known names.

    Cells are separated as the header's are: by commas, semicolons or tabs.

    Raises:
        TraceError: the header names something unknown or lacks a length.
    """
    first = header_of(lines, report.path)
    between = separator(first)
    header = next(csv.reader([first], delimiter=between))
    to_record = _header_parser(header, report, line=1)
    width = len(header)

    def parse(text: str) -> TraceRecord:
        cells = next(csv.reader([text], delimiter=between))
        if len(cells) != width:
            raise ValueError(f"{len(cells)} columns instead of {width}")
        return to_record(dict(zip(header, cells, strict=True)))

    return parse_each(lines, parse, report)


def separator(header: str) -> str:
    """What stands between the names of a header."""
    return next((mark for mark in (",", ";", "\t") if mark in header), ",")


def read_jsonl(lines: Iterator[Line], report: ReadReport) -> Iterator[Numbered]:
    """Yield the requests of a file of one JSON object a line (or of one JSON array)."""
    parsers: dict[tuple[str, ...], Callable[[Mapping[str, object]], TraceRecord]] = {}
    timed: set[bool] = set()
    decoder = msgspec.json.Decoder(dict[str, object])
    moment = timestamp_parser()

    def parse(text: str) -> TraceRecord:
        row = decoder.decode(text)
        names = tuple(row)
        if names not in parsers:
            parsers[names] = row_parser(names, moment)
            timed.add("arrival_s" in canonical_names(names).values())
            report.timed = timed == {True}
            if len(timed) > 1:
                raise ValueError("some requests have an arrival_s and some have none")
        return parsers[names](row)

    return parse_each(lines, parse, report)


def read_parquet(path: Path, report: ReadReport) -> Iterator[Numbered]:
    """Yield the requests of a Parquet file, batch by batch; rows count from 1.

    Raises:
        BadInputError: pyarrow is not installed.
        TraceError: the file is not Parquet, or its columns are unknown.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra, not a dependency
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError:
        raise BadInputError(
            f"{path}: reading Parquet needs pyarrow: pip install 'motley-router[report]'"
        ) from None
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise TraceError(f"not a Parquet file: {error}", path=str(path)) from None
    with file:
        to_record = _header_parser(list(file.schema_arrow.names), report, line=None)
        number = 0
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            for row in batch.to_pylist():
                number += 1
                try:
                    record = to_record(row)
                except ValueError as error:
                    report.bad(number, f"{error} in {shorten(str(row))}")
                else:
                    yield number, record


def _header_parser(
    header: list[str], report: ReadReport, line: int | None
) -> Callable[[Mapping[str, object]], TraceRecord]:
    try:
        report.timed = "arrival_s" in canonical_names(header).values()
        return row_parser(header, timestamp_parser())
    except UnknownFieldError as error:
        raise TraceError(str(error), path=report.path, line=line) from None
