"""A directory of trace files, such as the gateway's traffic record, read as one trace.

Several workers (``motley serve --workers``) write a folder each, ``worker-0`` and so on; they are
read as one as well. The record is cut into files as it grows, each in order of arrival; a request
is written when it ends, so neighbouring files overlap. They are merged, and only those that
overlap are open.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from pathlib import Path

from router.domain.errors import TraceError
from simulator.traces.parsing import Numbered
from simulator.traces.record import ReadReport

ENDINGS = (".parquet", ".jsonl", ".csv", ".jsonl.gz", ".csv.gz")
WORKERS = "worker-*"
JOURNAL = ".journal"
"""Of a traffic record: the file being written, one JSON line a request, in order of their ends."""

Reader = Callable[[Path, ReadReport], Iterator[Numbered]]


def files_in(directory: Path) -> list[Path]:
    """Every trace file right there or in a worker's folder, by name; hidden ones are left out.

    So is a journal whose finished file is there: it is about to be deleted.

    Raises:
        TraceError: there is none.
    """
    workers = sorted(path for path in directory.glob(WORKERS) if path.is_dir())
    found = [path for folder in (directory, *workers) for path in _right_there(folder)]
    if not found:
        raise TraceError(
            f"holds no trace file ({', '.join(ENDINGS)}); if it is a traffic record, there is no "
            "traffic in it yet",
            path=str(directory),
        )
    return found


def _right_there(directory: Path) -> list[Path]:
    listed = [path for path in directory.iterdir() if not path.name.startswith(".")]
    done = [path for path in listed if path.name.endswith(ENDINGS)]
    stems = {path.stem for path in done}
    journals = [
        path
        for path in listed
        if path.suffix == JOURNAL and path.stem not in stems and path.stat().st_size
    ]
    return sorted(done + journals)


def _sorted(reader: Reader) -> Reader:
    """A journal is no longer than one file of the record, so it can be sorted in memory."""

    def read(path: Path, report: ReadReport) -> Iterator[Numbered]:
        yield from sorted(reader(path, report), key=lambda one: one[1].arrival_s)

    return read


def read_directory(
    directory: Path, report: ReadReport, reader_of: Callable[[Path], Reader]
) -> Iterator[Numbered]:
    """Yield the requests of all files in order of arrival.

    Args:
        directory: see ``files_in``.
        report: counts for all of them.
        reader_of: the reader of a file, told by its content.

    Raises:
        TraceError: no file, or one that is no trace.
    """
    found = {path: reader_of(path) for path in files_in(directory)}
    readers = {p: _sorted(r) if p.suffix == JOURNAL else r for p, r in found.items()}
    waiting = sorted((_first_s(path, reader), path) for path, reader in readers.items())
    waiting.reverse()
    heads: list[tuple[float, int, Numbered, Iterator[Numbered]]] = []
    order = 0
    while waiting or heads:
        if waiting and (not heads or waiting[-1][0] <= heads[0][0]):
            path = waiting.pop()[1]
            rest, order = readers[path](path, report), order + 1
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
