"""Uvicorn around one emulated engine: start, stop, crash and come back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from simulator.engine_server.app import EngineApp
from simulator.engine_server.listening import PortError, address, listen

LAST_WORDS_S = 0.05
"""Between a crash and the cut of its connections: what vLLM's error events need to get out."""
_POLL_S = 0.005


class EngineServer:
    """Serves one engine on a listening socket inside the running loop.

    Args:
        make: builds the engine; called again when a killed engine comes back.
        listener: the socket, which the server then owns.

    ``gone`` is set when a kill is meant to last.
    """

    def __init__(self, make: Callable[[], EngineApp], listener: socket.socket) -> None:
        self.gone = asyncio.Event()
        self.app = make()
        self._make, self._listener = make, listener
        self._address = address(listener)
        self._server: _Uvicorn | None = None
        self._serving: asyncio.Task[None] | None = None
        self._crash: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Answer requests from now on."""
        self.app.on_kill = self._killed
        self._server = _Uvicorn(
            uvicorn.Config(
                self.app,
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",  # streams cut on purpose are logged as errors
                access_log=False,
            )
        )
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        while not self._server.started and not self._serving.done():
            await asyncio.sleep(_POLL_S)

    async def stop(self) -> None:
        """Stop at once; open connections are cut."""
        if self._crash is not None:
            self._crash.cancel()
            await asyncio.wait([self._crash])
        await self._cut()

    def _killed(self, restart_after_s: float | None) -> None:
        if self._server is not None:
            self._server.refuse()
        self._crash = asyncio.create_task(self._crashed(restart_after_s))

    async def _crashed(self, restart_after_s: float | None) -> None:
        await asyncio.sleep(LAST_WORDS_S)
        await self._cut()
        if restart_after_s is None:
            self.gone.set()
            return
        await asyncio.sleep(restart_after_s)
        try:
            self._listener = listen(*self._address)
        except PortError:  # somebody else took the port meanwhile
            self.gone.set()
            return
        self.app = self._make()
        await self.start()

    async def _cut(self) -> None:
        if self._server is None or self._serving is None:
            return
        self._server.abort()
        await asyncio.wait([self._serving])
        if self.app.publisher is not None:
            self.app.publisher.close()
        self._server = self._serving = None


class _Uvicorn(uvicorn.Server):
    """Uvicorn that leaves signals to the program and can hang up on everybody."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def refuse(self) -> None:
        """Accept no more connections."""
        for listener in self.servers:
            listener.close()

    def abort(self) -> None:
        """Cut every connection and stop."""
        self.should_exit = self.force_exit = True
        if self.started:
            self.refuse()
        for connection in list(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()
