"""What the relay tells whoever counts; the relay knows no metrics library."""

from __future__ import annotations

from typing import Protocol

LEFT_EARLY = 499
"""Status in the counts for a client that left before its answer began (nginx's number)."""

NO_MODEL = "none"
"""Label of requests that named no model that exists: clients do not make up label values."""


class Events(Protocol):
    """Implemented by ``telemetry.metrics.GatewayMetrics``."""

    def answered(self, model: str, slo_class: str, code: int) -> None:
        """A client got its answer, with this HTTP status."""

    def rejected(self, model: str, reason: str) -> None:
        """A request was turned away."""

    def retried(self, backend: str, reason: str) -> None:
        """An attempt failed before its first byte and goes elsewhere."""

    def waited(self, model: str, seconds: float) -> None:
        """A request left the router's queue, or never had to enter it (0 s)."""

    def worked(self, stage: str, seconds: float) -> None:
        """The gateway itself spent this long on a request."""
