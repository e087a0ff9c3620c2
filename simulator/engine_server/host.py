"""The parent's side of a process of emulated engines."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress

import msgspec

from router.domain.errors import MotleyError
from router.domain.fleet import BackendSpec
from simulator.engine_server.listening import listen, url_of
from simulator.engine_server.plan import EnginePlan, HostPlan, LoadPlan
from simulator.engine_server.tokens import LengthRule

STOP_S = 5.0


class EngineHostError(MotleyError):
    """The process of engines did not start."""


class EngineHost:
    """One child process that runs many engines on free loopback ports.

    One process for all engines: each is a timer and an HTTP server that mostly sleeps, so they
    share one interpreter (about 60 MB) and one core, and the gateway has the other core to
    itself. The sockets are bound and listening before the child starts: the URLs are known at
    once and nothing has to wait or to retry.

    Raises:
        PortError: no free port.
    """

    def __init__(self, specs: Iterable[BackendSpec]) -> None:
        self._engines = [(spec, listen("127.0.0.1", 0)) for spec in specs]
        self.urls = {spec.name: url_of(listener) for spec, listener in self._engines}
        self._process: subprocess.Popen[bytes] | None = None

    def start(
        self,
        *,
        speed: float = 1.0,
        seed: int = 0,
        load: LoadPlan | None = None,
        lengths: LengthRule | None = None,
    ) -> None:
        """Start the process; what is asked of its engines before they are up waits for them."""
        engines = [EnginePlan(spec, listener.fileno()) for spec, listener in self._engines]
        plan = HostPlan(engines, speed, seed, load, lengths)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "simulator.engine_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[engine.fd for engine in engines],
            start_new_session=True,  # Ctrl-C is for the parent, which then stops this one
        )
        for _, listener in self._engines:
            listener.close()  # else a killed engine's port would still accept
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it ended already: it will not get ready
            self._process.stdin.write(msgspec.json.encode(plan) + b"\n")
            self._process.stdin.flush()

    def wait_until_ready(self) -> None:
        """Wait until the engines answer.

        Raises:
            EngineHostError: the process ended instead; its own words are on standard error.
        """
        pipe = self._process.stdout if self._process is not None else None
        if pipe is None or pipe.readline() != b"ready\n":
            self.stop()
            raise EngineHostError("the process of emulated engines did not start; see above.")

    def stop(self) -> None:
        """Stop the process and close what is left; may be called more than once."""
        for _, listener in self._engines:
            listener.close()
        if self._process is None:
            return
        process, self._process = self._process, None
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # closing flushes
                    pipe.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> EngineHost:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
