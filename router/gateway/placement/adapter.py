"""What a way of starting and stopping engines must offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from router.domain.errors import MotleyError
from router.domain.fleet import BackendSpec
from solver.stock import Pool


class PlacementError(MotleyError):
    """An engine could not be started or stopped; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What there is to place.

    Attributes:
        pools: all cards, taken or free.
        startable: engines that do not run and could be started, each once.
        scalable: whether engines can be multiplied, so that only cards limit them.
    """

    pools: tuple[Pool, ...]
    startable: tuple[BackendSpec, ...]
    scalable: bool = False


class Adapter(Protocol):
    """Starts and stops engines.

    Attributes:
        name: for logs and history.
        dry: nothing it does changes the fleet, so nothing is waited for.
        joins: engines that it starts are added to the fleet by the gateway; otherwise discovery
            finds them.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def dry(self) -> bool: ...  # noqa: D102

    @property
    def joins(self) -> bool: ...  # noqa: D102

    async def survey(self, running: Sequence[BackendSpec]) -> Survey:
        """Look what there is.

        Raises:
            PlacementError: it cannot be told.
        """

    def preview(self, wanted: Mapping[str, int]) -> tuple[str, ...]:
        """What this placement (replicas by group) would change, a line each, after ``survey``."""

    async def begin(self) -> None:
        """Something is about to be changed: note what it takes to take it back.

        Raises:
            PlacementError: it cannot be noted.
        """

    async def finish(self) -> None:
        """The change is over, whatever came of it; not told if the gateway ends in between.

        Raises:
            PlacementError: it cannot be noted.
        """

    def can_start(self, group: str, running: Sequence[BackendSpec]) -> bool:
        """Whether an engine of this group could be started beside those that run."""

    async def start(self, group: str, running: Sequence[BackendSpec]) -> BackendSpec | None:
        """Start one engine and return once it is ready; which one, if the gateway adds it.

        Raises:
            PlacementError: it did not become ready.
        """

    async def stop(self, spec: BackendSpec) -> None:
        """Stop an engine that serves nobody any more.

        Raises:
            PlacementError: it would not stop.
        """

    async def close(self) -> None:
        """Let go of connections."""
