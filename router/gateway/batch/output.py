"""What a batch writes: a line an answer, whole or not at all, and read again after a restart."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec


@dataclass(frozen=True, slots=True)
class Written:
    """What an output or error file holds.

    Attributes:
        custom_ids: of the lines that can be read.
        damaged: numbers of those that cannot, counted from 1.
        torn: whether a crash cut off the last one.
    """

    custom_ids: set[str]
    damaged: list[int]
    torn: bool


class _Line(msgspec.Struct):
    custom_id: str


def append(path: Path, line: bytes) -> None:
    """Add one line, whole or not at all; it is on its way to the disk when this returns.

    Raises:
        OSError: there is no room for it.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    size, left = os.fstat(descriptor).st_size, line + b"\n"
    try:
        while left:  # a disk that gets full takes a part and says so only to the next write
            left = left[os.write(descriptor, left) :]
    except OSError:
        os.ftruncate(descriptor, size)
        raise
    finally:
        os.close(descriptor)


def resume(path: Path) -> Written:
    """Read what has been written, and take out what cannot be read: its requests are to be sent
    again, and clients read the file line by line.

    Raises:
        OSError: the file cannot be read or written.
    """
    with path.open("rb") as lines:
        found = read(lines)
    if found.damaged or found.torn:
        _take_out(path, frozenset(found.damaged))
    return found


def read(lines: Iterable[bytes]) -> Written:
    """Look at what has been written, line by line: it may be much."""
    custom_ids: set[str] = set()
    damaged: list[int] = []
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            return Written(custom_ids, damaged, torn=True)
        try:
            custom_ids.add(msgspec.json.decode(line, type=_Line).custom_id)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            damaged.append(number)
    return Written(custom_ids, damaged, torn=False)


def _take_out(path: Path, damaged: frozenset[int]) -> None:
    mended = path.with_suffix(".mended")
    try:
        with path.open("rb") as lines, mended.open("wb") as kept:
            kept.writelines(
                line
                for number, line in enumerate(lines, 1)
                if number not in damaged and line.endswith(b"\n")
            )
            kept.flush()
            os.fsync(kept.fileno())
        mended.replace(path)
    finally:
        mended.unlink(missing_ok=True)
