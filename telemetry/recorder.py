"""Records traffic to Parquet: bounded, rotated, and nothing finished is lost in a crash.

Parquet is readable only once its footer is written, so rows go to a journal first, one JSON line
each, handed to the kernel at every flush: a killed process loses the rows since the last flush,
a power cut those since the last sync. A full journal becomes a Parquet file under a temporary
name, which is renamed when it is complete; a journal that a dead process left is converted at
the next start, its torn last line skipped. Without pyarrow the journals stay as they are, as
``.jsonl`` files, which the simulator reads too.

``finished`` and ``rejected`` only append to memory; ``flush`` does the disk work and belongs in
a thread (``run`` puts it there).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import msgspec

from router.domain.errors import ConfigError
from router.domain.outcome import Outcome
from router.domain.protocols import Clock
from router.domain.request import Request
from telemetry.record_rows import RecordRow, RowMaker, write_parquet

PREFIX = "traffic-"
JOURNAL = ".journal"
_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(RecordRow)


@dataclass(frozen=True, slots=True)
class RecorderLimits:
    """What bounds the recorder.

    Attributes:
        file_rows, file_age_s: a file is closed when it has either.
        total_bytes: the oldest finished files go when all together are larger.
        pending_rows: rows kept in memory between flushes; more are dropped and counted.
    """

    file_rows: int = 100_000
    file_age_s: float = 3600.0
    total_bytes: int = 2 * 1024**3
    pending_rows: int = 50_000


class Recorder:
    """Writes one row per request to a directory of its own.

    Args:
        directory: made if it is missing.
        rows: builds the rows.
        limits: see ``RecorderLimits``.

    Raises:
        ConfigError: the directory cannot be made or written to.
    """

    def __init__(
        self, directory: Path, rows: RowMaker, limits: RecorderLimits | None = None
    ) -> None:
        self._directory, self._rows = directory, rows
        self._limits = limits or RecorderLimits()
        self._pending: deque[RecordRow] = deque()
        self._journal: _Journal | None = None
        # A flush in a thread outlives the task that waits for it, and may meet ``close``.
        self._writing = threading.Lock()
        self.recorded = 0
        self.dropped: Counter[str] = Counter()
        self.last_error = ""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._recover()
        except OSError as error:
            raise ConfigError(f"traffic record: cannot write to {directory}: {error}") from error

    def finished(
        self, request: Request, outcome: Outcome, attempts: int = 1, finish_reason: str = ""
    ) -> None:
        """A request is over, whatever the outcome of its last attempt."""
        if self._has_room():
            self._pending.append(self._rows.finished(request, outcome, attempts, finish_reason))

    def rejected(self, request: Request, reason: str, now: float) -> None:
        """A request was turned away without an attempt."""
        self.unserved(request, f"rejected:{reason}", now)

    def unserved(self, request: Request, status: str, now: float) -> None:
        """A request ended without an attempt: turned away, or its client left the queue."""
        if self._has_room():
            self._pending.append(self._rows.unserved(request, status, now))

    def flush(self, now: float) -> None:
        """Write what is pending, rotate what is due; disk errors are counted, never raised."""
        with self._writing:
            self._flush(now)

    def _flush(self, now: float) -> None:
        while self._pending:
            rows = [self._pending.popleft() for _ in range(min(1024, len(self._pending)))]
            try:
                self._write(rows, now)
            except OSError as error:
                self.dropped["disk"] += len(rows)
                self._fail(error)
        journal = self._journal
        if journal is not None and journal.due(now, self._limits):
            self._rotate()

    def close(self, now: float) -> None:
        """Write everything and finish the current file."""
        with self._writing:
            self._flush(now)
            self._rotate()

    async def run(self, clock: Clock, interval_s: float = 1.0) -> None:
        """Flush in a thread until cancelled, then close."""
        try:
            while True:
                await asyncio.sleep(interval_s)
                await asyncio.to_thread(self.flush, clock.now())
        finally:
            self.close(clock.now())

    def _has_room(self) -> bool:
        if len(self._pending) < self._limits.pending_rows:
            return True
        self.dropped["backlog"] += 1
        return False

    def _write(self, rows: list[RecordRow], now: float) -> None:
        if self._journal is None:
            self._journal = _Journal(_fresh(self._directory), now)
        self._journal.append(rows)
        self.recorded += len(rows)
        if self._journal.rows >= self._limits.file_rows:
            self._rotate()

    def _rotate(self) -> None:
        journal, self._journal = self._journal, None
        if journal is None:
            return
        try:
            journal.sync()
            _convert(journal.path)
            self._recover()
        except OSError as error:
            self._fail(error)  # the journal stays and is converted at the next rotation or start
        finally:
            journal.close()
        try:
            self._trim()
        except OSError as error:
            self._fail(error)

    def _recover(self) -> None:
        """Convert the journals of processes that are gone, and those that found the disk full."""
        for path in sorted(self._directory.glob(f"{PREFIX}*{JOURNAL}")):
            with suppress(FileNotFoundError), path.open("rb") as file:
                if _locked(file):
                    _convert(path)
        for path in self._directory.glob(f"{PREFIX}*.tmp"):
            if not path.with_suffix(JOURNAL).exists():
                path.unlink(missing_ok=True)

    def _trim(self) -> None:
        """Delete the oldest finished files until all that is there is small enough.

        What could not be finished counts, but is kept; so is the newest.
        """
        there = {path: path.stat().st_size for path in sorted(self._directory.glob(f"{PREFIX}*"))}
        excess = sum(there.values()) - self._limits.total_bytes
        for path in list(there)[:-1]:
            if excess <= 0:
                return
            if path.suffix in (".parquet", ".jsonl"):
                path.unlink(missing_ok=True)
                excess -= there[path]

    def _fail(self, error: OSError) -> None:
        self.last_error = str(error)


class _Journal:
    """Rows on their way to Parquet; locked while this process lives."""

    def __init__(self, path: Path, now: float) -> None:
        self.path, self.rows, self._opened_s = path, 0, now
        self._torn = False
        self._file = path.open("ab", buffering=0)
        _locked(self._file)

    def append(self, rows: list[RecordRow]) -> None:
        """One write for all rows.

        Raises:
            OSError: they could not be written whole.
        """
        lines = b"".join(_ENCODER.encode(row) + b"\n" for row in rows)
        # After a failure the last line may be torn; an empty one keeps the next whole.
        data, self._torn = (b"\n" + lines if self._torn else lines), True
        written = self._file.write(data)
        if written != len(data):
            raise OSError(f"wrote {written} of {len(data)} bytes to {self.path}")
        self._torn = False
        self.rows += len(rows)

    def due(self, now: float, limits: RecorderLimits) -> bool:
        """Whether it is time for a new file."""
        return self.rows >= limits.file_rows or now - self._opened_s >= limits.file_age_s

    def sync(self) -> None:
        """Onto the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Give the lock back."""
        self._file.close()


def _locked(file: BinaryIO) -> bool:
    """Take the lock of a journal; ``False`` if a living process has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _fresh(directory: Path) -> Path:
    """A name that sorts after every other one there, and is no other process's."""
    taken = [path.name for path in directory.glob(f"{PREFIX}*")]
    numbers = [int(name[len(PREFIX) :][:8]) for name in taken if name[len(PREFIX) :][:8].isdigit()]
    return directory / f"{PREFIX}{max(numbers, default=0) + 1:08d}-{os.getpid()}{JOURNAL}"


def _convert(journal: Path) -> None:
    """Turn a journal into a finished file, in the order of arrival, then delete it."""
    half = journal.with_suffix(".tmp")
    done = journal.with_suffix(".jsonl" if find_spec("pyarrow") is None else ".parquet")
    try:
        if _written(journal, half, done.suffix):
            half.rename(done)
    finally:
        half.unlink(missing_ok=True)  # on a full disk half a file is only in the way
    journal.unlink()


def _written(journal: Path, half: Path, suffix: str) -> bool:
    """Write its rows to a file of this kind, down to the disk; ``False`` if there are none."""
    with journal.open("rb") as file:
        places = _places(file)
        if not places:
            return False
        if suffix == ".jsonl":
            with half.open("wb") as lines:
                lines.writelines(_lines(file, places))
        else:
            write_parquet((_DECODER.decode(line) for line in _lines(file, places)), half)
    with half.open("rb") as written:
        os.fsync(written.fileno())
    return True


def _places(file: BinaryIO) -> list[tuple[float, int]]:
    """(arrival, offset) of every whole row by arrival: rows are written as requests end.

    A torn line (the process died in the middle of it) is no row.
    """
    found, offset = [], 0
    for line in file:
        with suppress(msgspec.DecodeError):
            found.append((_DECODER.decode(line).arrival_s, offset))
        offset += len(line)
    return sorted(found)


def _lines(file: BinaryIO, places: list[tuple[float, int]]) -> Iterator[bytes]:
    for _, offset in places:
        file.seek(offset)
        yield file.readline()
