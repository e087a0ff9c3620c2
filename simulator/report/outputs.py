"""Can the outputs be written? Asked before the work, not after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from router.domain.errors import BadInputError


def check_place(path: Path) -> None:
    """Make sure that a file can be made there.

    Raises:
        BadInputError: its folder does not exist, or it is a folder itself, or stdout is meant.
    """
    if str(path) == "-":
        raise BadInputError("-: only --json writes to stdout; give the name of a file (./- is one)")
    if not path.parent.is_dir():
        raise BadInputError(
            f"{path}: the folder {str(path.parent)!r} does not exist; make it first"
        )
    if path.is_dir():
        raise BadInputError(f"{path}: is a folder; give the name of a file")


def check_rows(path: Path) -> None:
    """Make sure that rows can be written there.

    Raises:
        BadInputError: as ``check_place``; an ending that names no format; pyarrow is missing.
    """
    check_place(path)
    if path.name.endswith(".parquet"):
        _need("pyarrow", path)
    elif not path.name.removesuffix(".gz").endswith((".csv", ".jsonl")):
        raise BadInputError(f"{path}: end the name with .parquet, .csv or .jsonl")


def check_html(path: Path) -> None:
    """Make sure that a page can be written there.

    Raises:
        BadInputError: as ``check_place``; matplotlib is missing.
    """
    check_place(path)
    _need("matplotlib", path)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file that cannot be written after all: a full disk, a place for reading only.

    Raises:
        BadInputError: for any ``OSError`` of what is done inside.
    """
    try:
        yield
    except OSError as error:
        raise BadInputError(f"cannot write {path}: {error.strerror or error}") from error


def _need(package: str, path: Path) -> None:
    if find_spec(package) is None:
        raise BadInputError(f"{path}: needs {package}: pip install 'motley-router[report]'")
