"""What a source of backends is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from router.config.schema import BackendEntry
from router.domain.errors import MotleyError


class DiscoveryError(MotleyError):
    """A source cannot be read now; its last fleet stands."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One whole fleet.

    Attributes:
        entries: each with a ``name`` that stays the same while the backend does, and one ``url``.
        refused: what cannot be a backend, each with its reason.
    """

    entries: Sequence[BackendEntry]
    refused: tuple[str, ...] = ()


class Source(Protocol):
    """Tells its whole fleet, again and again.

    Attributes:
        name: for logs and metrics; unique among the sources.
        retry_s: how long to wait after an error.
    """

    name: str
    retry_s: float

    def fleets(self) -> AsyncIterator[Seen]:
        """Whole fleets, the first at once and one whenever it may have changed.

        Raises:
            DiscoveryError: it cannot be read; it is asked for a new iterator after ``retry_s``.
        """
