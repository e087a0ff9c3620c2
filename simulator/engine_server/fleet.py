"""Many emulated engines in one event loop."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping

from router.domain.fleet import BackendSpec
from simulator.engine_server.app import EngineApp
from simulator.engine_server.build import EngineOptions, build_engine
from simulator.engine_server.listening import address
from simulator.engine_server.server import EngineServer


def make_server(
    spec: BackendSpec, listener: socket.socket, options: EngineOptions | None = None
) -> EngineServer:
    """A server for one engine; must be called in the loop that will run it."""
    loop = asyncio.get_running_loop()
    where = address(listener)

    def make() -> EngineApp:
        return build_engine(spec, options or EngineOptions(), loop, time.time, where)

    return EngineServer(make, listener)


class EngineFleet:
    """Emulated engines by backend name, on listening sockets, in the running loop."""

    def __init__(
        self,
        engines: Mapping[str, tuple[BackendSpec, socket.socket]],
        options: EngineOptions | None = None,
    ) -> None:
        self.servers = {
            name: make_server(spec, listener, options) for name, (spec, listener) in engines.items()
        }

    async def __aenter__(self) -> EngineFleet:
        await asyncio.gather(*[server.start() for server in self.servers.values()])
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*[server.stop() for server in self.servers.values()])
