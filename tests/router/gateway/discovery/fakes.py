"""Books that only remember, and entries to put in them."""

from __future__ import annotations

from typing import Any

from router.config.schema import BackendEntry
from router.domain.fleet import BackendSpec
from router.fleet_state.backend import BackendState
from router.gateway.discovery.roster import Roster
from router.gateway.discovery.seam import Seen
from router.perf.hardware import Hardware
from tests.fakes import MODEL, fleet_state


def entry(name: str, **fields: Any) -> BackendEntry:
    """One backend as a source tells it."""
    defaults = {"gpu": "a100-80", "model": MODEL, "url": f"http://{name}:8000"}
    return BackendEntry(name=name, **(defaults | fields))


def seen(*names: str) -> Seen:
    """A whole fleet of ordinary backends."""
    return Seen([entry(name) for name in names])


class FakeBooks:
    """A fleet without a dispatcher; implements ``roster.Books``."""

    def __init__(self) -> None:
        self.state = fleet_state()
        self.calls: list[str] = []
        self.awaited: list[str] = []

    @property
    def names(self) -> list[str]:
        return [backend.spec.name for backend in self.state.backends]

    def add_backend(self, spec: BackendSpec) -> BackendState:
        self.calls.append(f"add {spec.name}")
        return self.state.add(spec)

    def remove_backend(self, name: str) -> BackendState:
        self.calls.append(f"remove {name}")
        backend = self.state.get(name)
        self.state.remove(name)
        return backend

    def await_model(self, model: str) -> None:
        self.awaited.append(model)

    def drain_backend(self, name: str) -> None:
        self.calls.append(f"drain {name}")
        self.state.drain(name)

    def resume_backend(self, name: str) -> None:
        self.calls.append(f"resume {name}")
        self.state.resume(name)


def roster_over(books: FakeBooks, now: list[float], drain_s: float = 10.0) -> Roster:
    """A roster whose clock is the first element of ``now``."""
    return Roster(books, Hardware(), lambda: now[0], drain_s=drain_s)
