"""Where the backends are: addresses and keep-alive pools, one per backend.

Most recently used first, so that a quiet gateway keeps few connections warm and lets the engine
close the rest.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from router.domain.errors import ConfigError
from router.gateway.connection import Connection
from router.gateway.receiver import Receiver
from telemetry.http_get import reached

Guard = Callable[[str], str]
"""Given an address, why it is refused; empty if it is not."""

MAX_IDLE_CONNECTIONS = 512
_UNFIT = re.compile(r"[\x00-\x20\x7f]")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a backend listens.

    Attributes:
        host, port: for the socket.
        authority: value of the ``host`` header.
        prefix: path in front of ``/v1``; empty as a rule.
        tls: whether to speak TLS.
    """

    host: str
    port: int
    authority: bytes
    prefix: bytes
    tls: bool

    def url(self, path: str) -> str:
        """Absolute URL of a path on this backend."""
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{self.authority.decode()}{self.prefix.decode()}{path}"


def parse_address(name: str, url: str | None) -> Address:
    """Read a backend's base URL; a trailing ``/v1`` is dropped, as clients like to write it.

    Raises:
        ConfigError: no URL, or not an HTTP one.
    """
    if not url:
        raise ConfigError(
            f"backend {name!r} has no url. 'serve' needs one, for example url: http://host:8000"
        )
    if _UNFIT.search(url):  # ``urlsplit`` would take some of them out, and others reach the engine
        raise ConfigError(f"backend {name!r}: url {url!r} holds a space or a control character")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        (host or "").encode("idna")
    except ValueError as error:  # UnicodeError is one
        raise ConfigError(f"backend {name!r}: url {url!r} cannot be read: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"backend {name!r}: url {url!r} is not of the form http://host:port")
    if parts.query or parts.fragment:
        raise ConfigError(
            f"backend {name!r}: url {url!r} has a query or a fragment, and paths are put behind "
            "it; give the base URL alone"
        )
    if "@" in parts.netloc:
        raise ConfigError(
            f"backend {name!r}: its url holds a user name or a password, which would be shown and "
            "logged; give what an engine wants to see in upstream.api_key_file"
        )
    tls = parts.scheme == "https"
    return Address(
        host=host,
        port=port or (443 if tls else 80),
        authority=parts.netloc.encode(),
        prefix=parts.path.rstrip("/").removesuffix("/v1").encode(),
        tls=tls,
    )


class UpstreamPool:
    """Connections to one backend.

    Args:
        address: where it listens.
        guard: looks at the address that was really reached, before anything is sent there.
        tls: for https; by default the system's own trust.
    """

    def __init__(
        self,
        address: Address,
        guard: Guard | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.address = address
        self._guard = guard
        self._tls = (tls or ssl.create_default_context()) if address.tls else None
        self._idle: list[Connection] = []
        self._closed = False

    def open(
        self, receiver: Receiver, request: Sequence[bytes], *, fresh: bool = False
    ) -> Connection:
        """Send a request; the answer, or the failure, goes to ``receiver``.

        Args:
            receiver: hears everything that comes of it.
            request: head and body.
            fresh: dial anew instead of reusing a connection.
        """
        sent = None if fresh else self.send_ahead(request)
        if sent is not None:
            sent.attach(receiver)
            return sent
        connection = Connection(self)
        connection.connect(receiver, request)
        return connection

    def send_ahead(self, request: Sequence[bytes]) -> Connection | None:
        """Send a request over a connection that is kept warm; ``None`` if there is none.

        Who gets the answer must be attached before the event loop goes on.
        """
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.usable:
                connection.send_ahead(request)
                return connection
        return None

    async def dial(self, connection: Connection) -> None:
        """Open the socket.

        Raises:
            OSError: it cannot be opened.
        """
        loop = asyncio.get_running_loop()
        address = self.address
        transport, _ = await loop.create_connection(
            lambda: connection, address.host, address.port, ssl=self._tls
        )
        if self._guard is not None:
            refusal = self._guard(reached(transport))
            if refusal:
                transport.abort()
                raise OSError(refusal)

    def release(self, connection: Connection) -> None:
        """Keep a connection that has served, for the next request."""
        if len(self._idle) < MAX_IDLE_CONNECTIONS and not self._closed:
            self._idle.append(connection)
        else:
            connection.close()

    def forget(self, connection: Connection) -> None:
        """Drop an idle connection that the backend closed."""
        if connection in self._idle:
            self._idle.remove(connection)

    @property
    def idle(self) -> int:
        """Connections kept warm."""
        return len(self._idle)

    def close(self) -> None:
        """Close what is idle, and what is under way when it ends."""
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
