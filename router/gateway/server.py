"""The web server around the gateway: its socket, its settings, its signals."""

from __future__ import annotations

import errno
import gc
import logging
import math
import signal
import socket
import ssl
import sys
import time
from functools import partial
from types import FrameType
from typing import Any, Literal

import uvicorn

from router.config.upstream import ServerTls
from router.domain.errors import ConfigError
from router.gateway.asgi import Relay
from router.gateway.certificates import Renewal, load_files
from router.gateway.hot_http import HotHttp
from router.gateway.strict_http import StrictHttp

FrontEnd = Literal["protocol", "asgi"]

BACKLOG = 2048
GC_THRESHOLD = 50_000
"""Requests leave no cycles behind, so there is little to find."""

KEEP_ALIVE_S = 75.0
"""Longer than clients keep idle connections, so that they, not we, close them: no lost race."""

UNREAD_S = 60.0
"""A client that takes none of what is waiting for it for this long is let go: closing alone would
wait for it for ever, and with it an engine's sequence, a descriptor and what was not sent."""

TICK_S, DAY_TICKS = 0.1, 864_000
RENEWAL_TICKS = 10
"""Ticks between two looks at the certificate's files."""

_CUT_ON_PURPOSE = "ASGI callable returned without completing response."


def bind(host: str, port: int, *, shared: bool = False, listen: bool = True) -> socket.socket:
    """Open the listening socket; port 0 takes any free one.

    Args:
        host, port: where.
        shared: whether other processes of this user may listen there too (SO_REUSEPORT).
        listen: whether to take connections at once.

    Raises:
        ConfigError: the port is taken, or the address is not ours.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ConfigError(f"cannot listen on host {host!r}: {error.strerror}") from error
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform == "linux":  # inherited by every connection; a closed window counts
            unread_ms = int(1000 * UNREAD_S)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unread_ms)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        if listen:
            listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(_why_not(host, port, error)) from error
    return listener


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is taken. Choose another with --port, or stop its owner."
    if error.errno == errno.EACCES:
        return f"port {port} on {host} needs more rights. Choose one above 1023 with --port."
    return f"cannot listen on {host}:{port}: {error.strerror}"


def url_of(listener: socket.socket, *, tls: bool = False) -> str:
    """Base URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{shown}:{port}"


class _Server(uvicorn.Server):
    """Ends in steps: not ready, not accepting, then what still runs gets its time.

    Args:
        config: of uvicorn.
        app: told about the steps.
        delay_s: how long to accept requests while already not ready, so that load balancers can
            take notice before connections are refused.
        tls: its certificate, looked after for renewal.
    """

    def __init__(
        self, config: uvicorn.Config, app: Relay, delay_s: float, tls: ServerTls | None
    ) -> None:
        super().__init__(config)
        self._renewal = Renewal(tls) if tls is not None else None
        self._on_stop, self._on_drain = app.on_stop, app.on_drain
        self._delay_s = delay_s
        self._rest = app.engine.lull.rest
        self._leave_s = math.inf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins to drain, a second one does not wait."""
        self._on_drain()
        if self._delay_s and self._leave_s == math.inf:
            self._captured_signals.append(sig)
            self._leave_s = time.monotonic() + self._delay_s
        else:
            super().handle_exit(sig, frame)

    async def main_loop(self) -> None:
        """As uvicorn's, but a tick follows an answer where requests come."""
        counter = 0
        while not await self.on_tick(counter):
            counter = (counter + 1) % DAY_TICKS
            await self._rest(TICK_S)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if time.monotonic() >= self._leave_s:
            self.should_exit = True
        if self._renewal is not None and counter % RENEWAL_TICKS == 0 and self.config.ssl:
            self._renewal.look(self.config.ssl)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, then drain."""
        self._on_drain()
        self._on_stop()
        await super().shutdown(sockets)


def server(
    app: Relay,
    *,
    drain_s: float,
    front_end: FrontEnd = "protocol",
    delay_s: float = 0.0,
    tls: ServerTls | None = None,
) -> uvicorn.Server:
    """A uvicorn server for the gateway; give it sockets with ``serve(sockets=[...])``.

    Args:
        app: the ASGI application.
        drain_s: how long streams may run on after the server was told to stop.
        front_end: ``protocol`` takes hot requests from the parser, ``asgi`` through ASGI.
        delay_s: how long it goes on accepting after it was told to stop, while not ready.
        tls: certificate and key of the gateway, and whose clients' certificates to ask for.
    """
    protocol: Any = StrictHttp
    if front_end == "protocol":
        protocol = partial(HotHttp, app.engine, app.door)
    logging.getLogger("uvicorn.error").addFilter(_not_a_cut)
    return _Server(
        uvicorn.Config(
            app,
            loop="uvloop",
            http=protocol,
            ws="none",
            lifespan="on",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            log_config=None,
            timeout_keep_alive=math.ceil(KEEP_ALIVE_S),
            timeout_graceful_shutdown=math.ceil(drain_s),
            **_tls(tls),
        ),
        app,
        delay_s,
        tls,
    )


def run(
    app: Relay,
    listener: socket.socket,
    *,
    drain_s: float,
    front_end: FrontEnd = "protocol",
    delay_s: float = 0.0,
    tls: ServerTls | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    uvicorn stops accepting at once, lets answers finish until the deadline, runs the lifespan's
    end and raises the signal again: SIGTERM then means that all is done.
    """
    signal.signal(signal.SIGTERM, _leave)
    # What is loaded by now stays: looking through it again and again costs 5% of a request.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    web = server(app, drain_s=drain_s, front_end=front_end, delay_s=delay_s, tls=tls)
    web.run(sockets=[listener])


def check_tls(tls: ServerTls | None) -> None:
    """Try the gateway's certificate before anything is started.

    Raises:
        ConfigError: a file that cannot be read or does not fit the others.
    """
    if tls is None:
        return
    load_files(tls, ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))


def _tls(tls: ServerTls | None) -> dict[str, Any]:
    if tls is None:
        return {}
    verify = ssl.CERT_REQUIRED if tls.client_ca_file else ssl.CERT_NONE
    return {
        "ssl_certfile": tls.cert_file,
        "ssl_keyfile": tls.key_file,
        "ssl_ca_certs": tls.client_ca_file,
        "ssl_cert_reqs": verify,
    }


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    sys.exit(0)


def _not_a_cut(record: logging.LogRecord) -> bool:
    """Cutting a broken stream is deliberate; the server takes it for a mistake and says so."""
    return record.msg != _CUT_ON_PURPOSE
