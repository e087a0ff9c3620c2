"""Files and batches on local disk: rows in SQLite, contents beside it.

Names of contents are made here and never taken from a client, so no path can be talked into
leaving the folder.
"""

from __future__ import annotations

import fcntl
import logging
import re
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from router.domain.errors import ConfigError

log = logging.getLogger("motley.batch")

_T = TypeVar("_T")
_ID = re.compile(r"(?:file|batch)-[0-9a-f]{24}")
OPEN = ("validating", "in_progress", "cancelling", "finalizing")
"""States in which a batch is not over."""
_GOING_ON = ("validating", "in_progress")


@dataclass(slots=True)
class StoredFile:
    """One uploaded or written file; ``owner`` is a key's holder, empty for nobody in particular."""

    id: str
    owner: str
    filename: str
    purpose: str
    size_bytes: int
    created_unix_s: int


@dataclass(slots=True)
class Batch:
    """One batch, as far as it has come."""

    id: str
    owner: str
    endpoint: str
    input_file_id: str
    window: str
    created_unix_s: int
    expires_unix_s: int
    status: str = "validating"
    ended_unix_s: int = 0
    total: int = 0
    completed: int = 0
    failed: int = 0
    output_file_id: str = ""
    error_file_id: str = ""
    metadata: str = "null"
    errors: str = "null"
    by_token: bool = False  # begun by somebody who holds no key


class Store:
    """The folder.

    Raises:
        ConfigError: it cannot be made or written to.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._claim: BinaryIO | None = None
        self._version = -1
        self._damaged: set[bytes] = set()
        try:
            (self._folder / "files").mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                self._folder / "batches.sqlite3", isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode=WAL")
            for table in ("files", "batches"):
                self._db.execute(
                    f"CREATE TABLE IF NOT EXISTS {table} "
                    "(number INTEGER PRIMARY KEY, id TEXT UNIQUE, owner TEXT, content BLOB)"
                )
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"batch.directory: cannot use {folder}: {error}") from error

    def close(self) -> None:
        """Let go of the database, and of the batches."""
        self._db.close()
        if self._claim is not None:
            self._claim.close()

    # Several processes may share the folder

    def claim(self) -> bool:
        """Whether batches are this process's to work off: one at a time has them, until it
        closes the store or dies.

        Raises:
            OSError: the disk does not let anybody have them.
        """
        if self._claim is None:
            lock = (self._folder / "working.lock").open("wb")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                return False
            self._claim = lock
        return True

    def changed(self) -> bool:
        """Whether another process has written since this was asked last; true the first time."""
        before, self._version = self._version, self._db.execute("PRAGMA data_version").fetchone()[0]
        return before != self._version

    # Files

    def add_file(
        self, owner: str, filename: str, purpose: str, content: bytes, now_s: int
    ) -> StoredFile:
        """Keep a file.

        Raises:
            OSError, sqlite3.Error: the disk has no room for it; nothing of it is kept.
        """
        file = StoredFile(new_id("file"), owner, filename, purpose, len(content), now_s)
        try:
            self.path(file.id).write_bytes(content)
            self._put("files", file.id, owner, file)
        except (OSError, sqlite3.Error):
            self.path(file.id).unlink(missing_ok=True)
            raise
        return file

    def path(self, file_id: str) -> Path:
        """Where the content of a file is.

        Raises:
            KeyError: this is no id of ours.
        """
        if _ID.fullmatch(file_id) is None:
            raise KeyError(file_id)
        return self._folder / "files" / file_id

    def file(self, file_id: str, owner: str) -> StoredFile:
        """One file of this owner.

        Raises:
            KeyError: there is none.
        """
        return self._get("files", file_id, owner, StoredFile)

    def files(self, owner: str) -> list[StoredFile]:
        """All of this owner, the newest first."""
        return self._all("files", owner, StoredFile)

    def held(self, owner: str) -> tuple[int, int]:
        """How many files this owner has, and how many bytes are in them by now."""
        files = self.files(owner)
        return len(files), sum(file.size_bytes or self._size_bytes(file.id) for file in files)

    def _size_bytes(self, file_id: str) -> int:
        """Of a file that a batch may be writing."""
        try:
            return self.path(file_id).stat().st_size
        except OSError:
            return 0

    def resized(self, file: StoredFile) -> None:
        """Note how long a written file has become."""
        file.size_bytes = self.path(file.id).stat().st_size
        self._put("files", file.id, file.owner, file)

    def remove_file(self, file_id: str) -> None:
        """Forget a file."""
        self._db.execute("DELETE FROM files WHERE id = ?", (file_id,))
        self.path(file_id).unlink(missing_ok=True)

    # Batches

    def save(self, batch: Batch) -> None:
        """Keep a batch as it is now; one that was cancelled meanwhile, elsewhere, becomes so."""
        with self._alone():
            row = self._db.execute("SELECT content FROM batches WHERE id = ?", (batch.id,))
            kept = row.fetchone()
            cancelled = kept and msgspec.json.decode(kept[0], type=Batch).status == "cancelling"
            if cancelled and batch.status in _GOING_ON:
                batch.status = "cancelling"
            self._put("batches", batch.id, batch.owner, batch)

    def cancel(self, batch_id: str, owner: str) -> Batch:
        """Say that nothing more of a batch is to be sent; nothing changes once it is over.

        Raises:
            KeyError: there is none.
        """
        with self._alone():
            batch = self.batch(batch_id, owner)
            if batch.status in OPEN:
                batch.status = "cancelling"
                self._put("batches", batch.id, batch.owner, batch)
        return batch

    def batch(self, batch_id: str, owner: str) -> Batch:
        """One batch of this owner.

        Raises:
            KeyError: there is none.
        """
        return self._get("batches", batch_id, owner, Batch)

    def batches(self, owner: str) -> list[Batch]:
        """All of this owner, the newest first."""
        return self._all("batches", owner, Batch)

    def unfinished(self) -> Iterator[Batch]:
        """Batches of everybody that are not over, the oldest first."""
        rows = self._db.execute("SELECT content FROM batches ORDER BY number").fetchall()
        return (batch for batch in self._readable(rows, Batch) if batch.status in OPEN)

    def forget_batches(self, owner: str, but: int) -> None:
        """Forget this owner's oldest batches that are over, but for so many; their files stay."""
        for batch in self.batches(owner)[but:]:
            if batch.status not in OPEN:
                self._db.execute("DELETE FROM batches WHERE id = ?", (batch.id,))

    # Rows

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else writes between what is read and what is written in here."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite ends one itself where the disk is full
                self._db.execute("ROLLBACK")
            raise

    def _put(self, table: str, row_id: str, owner: str, thing: StoredFile | Batch) -> None:
        self._db.execute(
            f"INSERT INTO {table} (id, owner, content) VALUES (?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET content = excluded.content",
            (row_id, owner, msgspec.json.encode(asdict(thing))),
        )

    def _get(self, table: str, row_id: str, owner: str, kind: type[_T]) -> _T:
        query = f"SELECT content FROM {table} WHERE id = ? AND owner = ?"
        row = self._db.execute(query, (row_id, owner)).fetchone()
        if row is None:
            raise KeyError(row_id)
        for thing in self._readable([row], kind):
            return thing
        raise KeyError(row_id)

    def _all(self, table: str, owner: str, kind: type[_T]) -> list[_T]:
        query = f"SELECT content FROM {table} WHERE owner = ? ORDER BY number DESC"
        rows = self._db.execute(query, (owner,)).fetchall()
        return list(self._readable(rows, kind))

    def _readable(self, rows: Iterable[tuple[bytes]], kind: type[_T]) -> Iterator[_T]:
        """What can be read; the rest is told once, and keeps nobody from the others."""
        for (content,) in rows:
            try:
                yield msgspec.json.decode(content, type=kind)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                if content not in self._damaged:
                    self._damaged.add(content)
                    log.error("batch.directory: a row cannot be read (%s): %.80r", error, content)


def new_id(kind: str) -> str:
    """A name that nobody can guess."""
    return f"{kind}-{secrets.token_hex(12)}"
