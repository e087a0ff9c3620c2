"""Writes what it would do to a file, and does nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from router.domain.fleet import BackendSpec, Fleet
from router.gateway.placement.adapter import PlacementError, Survey
from router.perf.hardware import Hardware
from solver.stock import stock_of


class DryRun:
    """An adapter for looking before leaping.

    Args:
        path: of the JSON file; replaced as a whole at each plan.
        hardware: the catalogue.
    """

    name = "dry-run"
    dry = True
    joins = False

    def __init__(self, path: Path, hardware: Hardware) -> None:
        self._path, self._hardware = path, hardware

    async def survey(self, running: Sequence[BackendSpec]) -> Survey:
        """The fleet's own cards, and everything that could be built from them."""
        stock = stock_of(Fleet(tuple(running)), hardware=self._hardware)
        specs = tuple(one.spec for one in stock.candidates if not one.running)
        return Survey(stock.pools, specs, scalable=True)

    def preview(self, wanted: Mapping[str, int]) -> tuple[str, ...]:  # noqa: ARG002
        """The steps say it all."""
        return ()

    async def begin(self) -> None:
        """Nothing to note."""

    async def finish(self) -> None:
        """Nothing to note."""

    def can_start(self, group: str, running: Sequence[BackendSpec]) -> bool:  # noqa: ARG002
        """Nothing is started."""
        return False

    async def start(self, group: str, running: Sequence[BackendSpec]) -> BackendSpec | None:  # noqa: ARG002
        """Nothing is started."""
        return None

    async def stop(self, spec: BackendSpec) -> None:
        """Nothing is stopped."""

    def write(self, document: Mapping[str, Any]) -> None:
        """Replace the file by what would be done.

        Raises:
            PlacementError: it cannot be written.
        """
        draft = self._path.with_name(f".{self._path.name}.new")
        try:
            draft.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
            os.replace(draft, self._path)
        except OSError as error:
            raise PlacementError(f"cannot write {self._path}: {error.strerror}") from error

    async def close(self) -> None:
        """Nothing to let go of."""
