"""A directory of trace files, such as the gateway's traffic record, read as one trace.

The record is cut into files as it grows, each in order of arrival; a request is written when it
ends, so neighbouring files overlap. They are merged, and only those that overlap are open.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from pathlib import Path

from router.domain.errors import TraceError
from simulator.traces.parsing import Numbered
from simulator.traces.record import ReadReport

ENDINGS = (".parquet", ".jsonl", ".csv", ".jsonl.gz", ".csv.gz")

Reader = Callable[[Path, ReadReport], Iterator[Numbered]]


def files_in(directory: Path) -> list[Path]:
    """Every trace file right there, by name; hidden ones and journals being written left out.

    Raises:
        TraceError: there is none.
    """
    found = sorted(
        path
        for path in directory.iterdir()
        if path.name.endswith(ENDINGS) and not path.name.startswith(".")
    )
    if not found:
        raise TraceError(
            f"holds no trace file ({', '.join(ENDINGS)}); a traffic record that is being written "
            "is readable once its first file is closed",
            path=str(directory),
        )
    return found


def read_directory(
    directory: Path, report: ReadReport, reader_of: Callable[[Path], Reader]
) -> Iterator[Numbered]:
    """Yield the requests of all files in order of arrival.

    Args:
        directory: see ``files_in``.
        report: counts for all of them.
        reader_of: the reader of a file.

    Raises:
        TraceError: no file, or one that is no trace.
    """
    waiting = sorted((_first_s(path, reader_of(path)), path) for path in files_in(directory))
    waiting.reverse()
    heads: list[tuple[float, int, Numbered, Iterator[Numbered]]] = []
    order = 0
    while waiting or heads:
        if waiting and (not heads or waiting[-1][0] <= heads[0][0]):
            path = waiting.pop()[1]
            rest, order = reader_of(path)(path, report), order + 1
            number = order
        else:
            _, number, head, rest = heapq.heappop(heads)
            yield head
        following = next(rest, None)
        if following is not None:
            heapq.heappush(heads, (following[1].arrival_s, number, following, rest))


def _first_s(path: Path, reader: Reader) -> float:
    """Arrival of the first request; infinity if there is none."""
    first = next(reader(path, ReadReport(path=str(path))), None)
    return float("inf") if first is None else first[1].arrival_s
