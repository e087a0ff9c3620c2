"""BurstGPT: 121 days of campus calls to GPT-3.5 and GPT-4.

``Timestamp`` (seconds), ``Model``, ``Request tokens``, ``Response tokens``, ``Total tokens``,
``Log Type``; newer files add ``Session ID`` and ``Elapsed time``. Failed calls have no response
tokens. The trace's model names say nothing about the replaying fleet, so they are kept as the
tenant. Source: Wang et al., "BurstGPT", arXiv 2401.17644.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator

from simulator.traces.parsing import Numbered, find_columns, header_of, parse_each
from simulator.traces.record import ReadReport, TraceRecord
from simulator.traces.source import Line

COLUMNS = ("Timestamp", "Model", "Request tokens", "Response tokens")


def read_burstgpt(lines: Iterator[Line], report: ReadReport) -> Iterator[Numbered]:
    """Yield the requests of a BurstGPT CSV."""
    header = next(csv.reader([header_of(lines, report.path)]))
    when, model, request, response = find_columns(header, COLUMNS, report.path)
    names = [name.strip().lower() for name in header]
    session = names.index("session id") if "session id" in names else None
    width = len(header)

    def parse(text: str) -> TraceRecord:
        cells = next(csv.reader([text]))
        if len(cells) != width:
            raise ValueError(f"{len(cells)} columns instead of {width}")
        return TraceRecord(
            float(cells[when]),
            int(cells[request]),
            int(cells[response]),
            tenant=cells[model],
            session=cells[session] if session is not None else "",
        )

    return parse_each(lines, parse, report)
