"""Towards the backends: connections, who we are there, and the request's bytes as they leave."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from router.domain.fleet import BackendSpec
from router.gateway.access.gate import Gate
from router.gateway.multipart import is_form, renamed
from router.gateway.rewriting import with_priority_turned
from router.gateway.settings import EngineSettings
from router.gateway.upstream import Address, Guard, UpstreamPool, parse_address
from router.gateway.wire import HOP_BY_HOP, Call, end_to_end

PRIORITY_LABEL, LOW_FIRST = "priority_order", "low-first"
"""Label of an SGLang that was started with ``--schedule-low-priority-values-first``."""

MOST_JOINED = 16_384
"""Up to so many bytes it is cheaper to copy a body than to write two pieces."""
_ASK_LOAD = b"\r\nendpoint-load-metrics-format: TEXT"
_HEAD = b"POST %b HTTP/1.1\r\nhost: %b\r\ncontent-length: %d\r\nx-request-id: %b%b%b\r\n\r\n"
_OURS = frozenset(
    (
        *(b"host", b"content-length", b"expect", b"accept-encoding", b"x-request-id"),
        b"endpoint-load-metrics-format",
        *HOP_BY_HOP,
    )
)
_CREDENTIALS = frozenset((b"authorization", b"x-api-key"))


class Outbound:
    """What an engine needs to reach its backends.

    Args:
        settings: see ``EngineSettings``.
        gate: when it checks credentials, they go no further.

    Attributes:
        guards: by backend, for those that were registered over REST: where they may be.
    """

    def __init__(self, settings: EngineSettings, gate: Gate) -> None:
        self.gate = gate
        self.guards: dict[str, Guard] = {}
        self._settings = settings
        self._drop = _OURS | (_CREDENTIALS if gate else frozenset())
        self._pools: dict[str, UpstreamPool] = {}

    def reconfigure(self, settings: EngineSettings) -> None:
        """Other settings from now on."""
        self._settings = settings
        self._drop = _OURS | (_CREDENTIALS if self.gate else frozenset())

    def close(self) -> None:
        """Let go of idle connections."""
        for pool in self._pools.values():
            pool.close()

    def upstream_request(
        self, call: Call, body: bytes, asked: str, backend: BackendSpec, address: Address
    ) -> Sequence[bytes]:
        """Head and body for one backend: the client's own bytes, but for what is per hop.

        ``accept-encoding`` is held back, so that usage can be read in passing.
        """
        settings, ready = self._settings, call.passed
        model = settings.aliases.get(asked, asked)
        if model not in settings.adapters:
            model = backend.served_model or backend.model
        if asked != model:
            body = renamed(body, model, call.content_type)
        if backend.engine == "sglang" and _high_first(backend) and not is_form(call.content_type):
            body = with_priority_turned(body)
        target = address.prefix + call.path + (b"?" + call.query if call.query else b"")
        drop, more = self._drop, b""
        own = self.credentials(backend.name) if settings.identity is not None else b""
        if own:
            more = b"\r\n" + own
            drop |= _CREDENTIALS
        if settings.asks_load and backend.engine == "vllm":
            more += _ASK_LOAD
        head = _HEAD % (
            target,
            address.authority,
            len(body),
            call.request_id.encode(),
            (ready.get(drop) if ready is not None else None) or _passed(call, drop),
            more,
        )
        return (head, body) if len(body) > MOST_JOINED else (head + body,)

    def credentials(self, name: str) -> bytes:
        """The header line that shows a backend who we are; empty if it need not know."""
        identity = self._settings.identity
        return identity.authorization(name) if identity is not None else b""

    def tls(self, name: str) -> ssl.SSLContext | None:
        """Whom to trust as this backend, and what to show it; ``None`` for the system's trust."""
        identity = self._settings.identity
        return identity.tls(name) if identity is not None else None

    def keeps_credentials(self, name: str) -> bool:
        """Whether the client's own are held back from this backend."""
        return bool(self.gate) or bool(self.credentials(name))

    def pool(self, backend: BackendSpec) -> UpstreamPool:
        """Connections to a backend."""
        pool = self._pools.get(backend.name)
        if pool is None:
            address = parse_address(backend.name, backend.url)
            guard, tls = self.guards.get(backend.name), self.tls(backend.name)
            pool = UpstreamPool(address, guard, tls)
            self._pools[backend.name] = pool
        return pool

    def forget(self, name: str) -> None:
        """A backend left the fleet: close its idle connections."""
        self.guards.pop(name, None)
        pool = self._pools.pop(name, None)
        if pool is not None:
            pool.close()


def _passed(call: Call, drop: frozenset[bytes]) -> bytes:
    """The lines of the client's own head that go on, each after a line's end."""
    lines = b"".join([b"\r\n%b: %b" % pair for pair in end_to_end(call.headers, drop)])
    if call.passed is not None:
        call.passed[drop] = lines
    return lines


def _high_first(backend: BackendSpec) -> bool:
    """Whether this engine serves the higher ``priority`` first."""
    return backend.engine == "sglang" and backend.labels.get(PRIORITY_LABEL) != LOW_FIRST
