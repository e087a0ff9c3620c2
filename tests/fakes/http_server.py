"""A small HTTP server of threads, on loopback, for what speaks HTTP to strangers."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Handler(http.server.BaseHTTPRequestHandler):
    """Keeps connections, and says nothing on standard error; override ``get`` and ``post``."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.get()

    def do_POST(self) -> None:
        self.post()

    def get(self) -> None:
        """Answer a GET."""
        self.say(b"")

    def post(self) -> None:
        """Answer a POST."""
        self.read()
        self.say(b"")

    def read(self) -> bytes:
        """The request's body."""
        return self.rfile.read(int(self.headers["content-length"]))

    def say(self, body: bytes, status: int = 200, kind: str = "application/json") -> None:
        """Answer with a whole body."""
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@contextmanager
def served(handler: type[Handler]) -> Iterator[str]:
    """Serve until the block ends; yields the URL."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        again = {"poll_interval": 0.01}
        thread = threading.Thread(target=server.serve_forever, kwargs=again, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def free_port() -> int:
    """A port where nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
