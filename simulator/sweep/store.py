"""Finished cells on disk: an interrupted sweep loses nothing that is done."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from router.domain.errors import ConfigError
from simulator.summary import Summary
from simulator.sweep.cell import Cell


class Store:
    """A folder with one JSON file per finished cell.

    Args:
        folder: made if it does not exist.

    Raises:
        ConfigError: the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._cells = folder / "cells"
        try:
            self._cells.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot make the folder {folder}: {error.strerror}") from None

    def load(self, cell: Cell) -> Summary | None:
        """The result of a finished cell; a torn or foreign file counts as not finished."""
        try:
            found = msgspec.json.decode(self._path(cell).read_bytes(), type=dict[str, object])
        except (OSError, msgspec.DecodeError):
            return None
        return found if found.get("policy") == cell.policy else None

    def save(self, cell: Cell, summary: Summary) -> None:
        """Keep a result; either all of it is there or nothing."""
        path = self._path(cell)
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        scratch.write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=1))
        scratch.replace(path)

    def _path(self, cell: Cell) -> Path:
        return self._cells / f"{cell.key()}.json"
