"""GETs to the engines, shown the same keys, certificates and caution as the requests of clients."""

from __future__ import annotations

from router.gateway.engine import Engine
from telemetry.http_get import HttpGetter


def fetcher_for(engine: Engine, name: str) -> HttpGetter:
    """For the backend of this name, whose key, certificates and guard may change at any time.

    Args:
        engine: knows them.
        name: of the backend.
    """

    def refusal(address: str) -> str:
        guard = engine.guards.get(name)
        return guard(address) if guard is not None else ""

    return HttpGetter(
        lambda: engine.tls(name), header=lambda: engine.credentials(name), guard=refusal
    )


class Fetchers:
    """One for each backend, kept while the fleet has it.

    Args:
        engine: knows the fleet.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kept: dict[str, HttpGetter] = {}

    def of(self, name: str) -> HttpGetter:
        """For the backend of this name."""
        kept = self._kept.get(name)
        if kept is None:
            kept = self._kept[name] = fetcher_for(self._engine, name)
        return kept

    def tidy(self) -> None:
        """Let go of the connections to backends that left."""
        for name in [name for name in self._kept if not self._engine.has(name)]:
            self._kept.pop(name).close()
