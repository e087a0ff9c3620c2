"""The file of what was learned: read with care, written whole or not at all, by one process only.

Written beside its place, brought to the disk and then renamed, so that whoever reads finds the old
one or the new one; readable by its owner alone, as tenants are named in it. A lock on ``FILE.lock``
says who writes: worker processes and a successor that starts before its predecessor has stopped
read the same file, and the lock goes with the process that held it, however that ended.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from contextlib import suppress
from pathlib import Path

from router.domain.errors import LearnedError
from telemetry.learned import MOST_BYTES, Learned, decode

OWNER_ONLY = 0o600
_BUSY = frozenset((errno.EAGAIN, errno.EACCES))


def read_learned(path: str | Path) -> tuple[Learned, list[str]]:
    """What a file holds, and which parts of it cannot be used.

    Raises:
        LearnedError: there is no such file, or nothing of it can be used.
    """
    try:
        return decode(read_bytes(Path(path)))
    except OSError as error:
        raise LearnedError(f"cannot read {path}: {error.strerror}") from error
    except LearnedError as error:
        raise LearnedError(f"{path}: {error}") from error


def read_bytes(path: Path) -> bytes:
    """The content of a file of sensible size.

    Raises:
        OSError: it cannot be read.
        LearnedError: it is no file, or a huge one.
    """
    # Opening a pipe would wait for somebody to write.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise LearnedError("it is no file")
        data = file.read(MOST_BYTES + 1) if facts.st_size <= MOST_BYTES else b""
        if facts.st_size > MOST_BYTES or len(data) > MOST_BYTES:
            raise LearnedError(f"it is larger than {MOST_BYTES // 2**20} MiB")
        return data


class LearnedFile:
    """One process's hold on the file.

    Args:
        path: of the file; it need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(os.path.realpath(path))
        self._lock: int | None = None

    @property
    def ours(self) -> bool:
        """Whether this process writes it."""
        return self._lock is not None

    def claim(self) -> bool:
        """Become the one who writes it; whether that is so.

        Raises:
            OSError: nobody can write here.
        """
        if self._lock is not None:
            return True
        handle = os.open(self._beside("lock"), _FRESH, OWNER_ONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if error.errno in _BUSY:
                return False
            raise
        self._lock = handle
        return True

    def release(self) -> None:
        """Let another process write."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def write(self, data: bytes) -> None:
        """Replace the content.

        Raises:
            OSError: it could not; the old content is still there.
        """
        fresh = self._beside("new")
        try:
            handle = os.open(fresh, _FRESH | os.O_TRUNC, OWNER_ONLY)
            with open(handle, "wb") as file:
                os.fchmod(handle, OWNER_ONLY)
                file.write(data)
                file.flush()
                os.fsync(handle)
            fresh.replace(self.path)
        except OSError:
            with suppress(OSError):
                fresh.unlink()
            raise
        self._settle_name()

    def put_aside(self) -> Path:
        """Keep what is there under another name; returns it.

        Raises:
            OSError: it could not be renamed.
        """
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        aside = self._beside(f"aside-{stamp}")
        number = 1
        while aside.exists():
            number += 1
            aside = self._beside(f"aside-{stamp}-{number}")
        self.path.rename(aside)
        return aside

    def _beside(self, ending: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{ending}")

    def _settle_name(self) -> None:
        """A rename is on the disk once its folder is; a file system that cannot say so does it
        in its own time."""
        with suppress(OSError):
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


_FRESH = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
