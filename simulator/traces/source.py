"""Bytes of a trace file: gzip seen through, lines numbered, memory constant."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from router.domain.errors import TraceError

Line = tuple[int, str]
"""Line number counted from 1, and the line without its end."""

_SNIFF_BYTES = 65_536
_GZIP_MAGIC = b"\x1f\x8b"


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading; gzip is recognised by its first bytes, not by its name.

    Raises:
        TraceError: it does not exist, cannot be read, or its gzip stream is damaged.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == _GZIP_MAGIC
            raw.seek(0)
            if packed:
                with gzip.open(raw) as unpacked:
                    yield io.BufferedReader(unpacked)
            else:
                yield raw
    except FileNotFoundError:
        raise TraceError("no such file", path=str(path)) from None
    except (IsADirectoryError, PermissionError) as error:
        raise TraceError(f"cannot be read: {error.strerror}", path=str(path)) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise TraceError(f"the gzip stream is damaged: {error}", path=str(path)) from None


def sniff(path: Path) -> bytes:
    """Return the first 64 KiB, unpacked."""
    with open_bytes(path) as file:
        return file.read(_SNIFF_BYTES)


def read_lines(path: Path) -> Iterator[Line]:
    """Yield numbered lines; blank ones are passed over, undecodable bytes replaced."""
    with open_bytes(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline=None)
        for number, line in enumerate(text, start=1):
            stripped = line.strip()
            if stripped:
                yield number, stripped


def read_all(path: Path) -> bytes:
    """Return the whole file, unpacked: for formats that are one JSON document."""
    with open_bytes(path) as file:
        return file.read()


def read_items(path: Path) -> Iterator[Line]:
    """Yield the items of one JSON array, numbered from 1, holding one of them at a time.

    Raises:
        TraceError: the file is not a JSON array, or ends in the middle of one.
    """
    with open_bytes(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace")
        buffer = text.read(_SNIFF_BYTES).lstrip()
        if not buffer.startswith("["):
            raise TraceError("is not a JSON array", path=str(path))
        yield from _items(text, buffer[1:], str(path))


def _items(text: IO[str], buffer: str, path: str) -> Iterator[Line]:
    decoder, number = json.JSONDecoder(), 1
    while True:
        buffer = buffer.lstrip().removeprefix(",").lstrip()
        if buffer.startswith("]"):
            return
        try:
            _, end = decoder.raw_decode(buffer)
            complete = end < len(buffer)
        except json.JSONDecodeError:
            complete = False
        if complete:
            yield number, buffer[:end]
            buffer, number = buffer[end:], number + 1
            continue
        # Read as much again as is waiting: a long item is parsed a logarithmic number of times.
        more = text.read(max(_SNIFF_BYTES, len(buffer)))
        if not more:
            raise TraceError("the JSON array is malformed or cut off here", path=path, line=number)
        buffer += more
