"""Binding ports, with errors that say what to do."""

from __future__ import annotations

import errno
import socket

from router.domain.errors import BadInputError


class PortError(BadInputError):
    """An address that cannot be listened on."""


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 picks a free one.

    Raises:
        PortError: the port is taken or reserved, or the host is no address of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise PortError(f"{host!r} is not an address of this machine: {error}.") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except (OSError, OverflowError) as error:
        listener.close()
        raise PortError(_explain(error, host, port)) from None
    return listener


def address(listener: socket.socket) -> tuple[str, int]:
    """Host and port a socket listens on."""
    host, port = listener.getsockname()[:2]
    return str(host), int(port)


def url_of(listener: socket.socket) -> str:
    """Base URL of a socket that listens on this machine."""
    host, port = address(listener)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _explain(error: OSError | OverflowError, host: str, port: int) -> str:
    code = error.errno if isinstance(error, OSError) else None
    if code == errno.EADDRINUSE:
        return f"port {port} on {host} is taken; stop what uses it, or choose another with --port."
    if code in {errno.EACCES, errno.EPERM}:
        return f"port {port} on {host} is reserved for root; choose one above 1023 with --port."
    if code == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine; try 127.0.0.1."
    return f"cannot listen on {host}:{port}: {error}."
