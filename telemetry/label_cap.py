"""Keeps what clients write from becoming time series without end."""

from __future__ import annotations

OTHER = "other"
LONGEST = 128


class LabelCap:
    """Lets the first ``limit`` values through; later ones become ``"other"``.

    A client can put anything into a tenant or model name, and a metrics store keeps one series
    for each value it has ever seen.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: dict[str, str] = {}
        self.refused = 0

    def __call__(self, value: str) -> str:
        """Return the label to use for ``value``."""
        known = self._seen.get(value)
        if known is not None:
            return known
        if len(self._seen) >= self._limit:
            self.refused += 1
            return OTHER
        self._seen[value] = label = value[:LONGEST].encode("utf-8", "replace").decode()
        return label

    def admit(self, value: str) -> None:
        """Let ``value`` through whatever the limit: it comes from the operator's own file."""
        self._seen.setdefault(value, value)
