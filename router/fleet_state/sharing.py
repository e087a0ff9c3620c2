"""What replicas of the router tell each other of their load, in service and in simulation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from router.domain.state import RemoteLoad
from router.fleet_state.fleet import FleetState


def own_loads(state: FleetState) -> dict[str, RemoteLoad]:
    """What one replica has under way, by backend; idle ones are left out."""
    loads = {backend.spec.name: backend.own_load() for backend in state.backends}
    return {name: load for name, load in loads.items() if load.in_flight}


def added(told: Iterable[Mapping[str, RemoteLoad]]) -> dict[str, RemoteLoad]:
    """Several replicas' loads together, by backend."""
    total: dict[str, RemoteLoad] = {}
    for loads in told:
        for name, load in loads.items():
            total[name] = total[name].plus(load) if name in total else load
    return total
