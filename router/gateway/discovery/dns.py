"""Backends by name: every address that a name resolves to, or every target of its SRV records."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

from router.config.discovery import DnsSource, server_and_port
from router.config.schema import BackendEntry
from router.domain.errors import ConfigError
from router.gateway.discovery.seam import DiscoveryError, Seen

_FAMILY = {"A": socket.AF_INET, "AAAA": socket.AF_INET6, "any": socket.AF_UNSPEC}

Place = tuple[str, int]


class FromDns:
    """Implements ``seam.Source``: resolves again and again.

    An answer without addresses is a fleet of none; a resolver that does not answer is an error,
    and the last fleet stands.

    Raises:
        ConfigError: SRV, and the extra ``dns`` is not installed.
    """

    def __init__(self, settings: DnsSource) -> None:
        self.name = f"dns {settings.record} {settings.name}"
        self.retry_s = settings.interval_s
        self._settings = settings
        if settings.record == "SRV" or settings.nameservers:
            try:
                import dns.asyncresolver  # noqa: F401, PLC0415 - optional
            except ImportError as error:
                raise ConfigError(
                    "SRV records and nameservers of your own need the extra 'dns': "
                    "pip install 'motley-router[dns]'"
                ) from error

    async def fleets(self) -> AsyncIterator[Seen]:
        """The backends behind the name, every ``interval_s``."""
        settings = self._settings
        asks = self._ask if settings.record == "SRV" or settings.nameservers else self._getaddrinfo
        while True:
            yield Seen([self._entry(place) for place in sorted(set(await asks()))])
            await asyncio.sleep(settings.interval_s)

    async def _getaddrinfo(self) -> list[Place]:
        settings = self._settings
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(
                settings.name,
                settings.port,
                family=_FAMILY[settings.record],
                type=socket.SOCK_STREAM,
            )
        except socket.gaierror as error:
            if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", -5)):
                return []
            raise DiscoveryError(f"cannot resolve {settings.name}: {error.strerror}") from error
        return [(str(address[0]), int(address[1])) for *_, address in found]

    async def _ask(self) -> list[Place]:
        """With dnspython: SRV, and nameservers of the user's own."""
        import dns.asyncresolver  # noqa: PLC0415 - optional, slow to import
        import dns.exception  # noqa: PLC0415
        import dns.nameserver  # noqa: PLC0415
        import dns.resolver  # noqa: PLC0415

        settings = self._settings
        try:
            resolver = dns.asyncresolver.Resolver(configure=not settings.nameservers)
        except (dns.exception.DNSException, OSError) as error:
            raise DiscoveryError(f"this machine names no name server: {error}") from error
        if settings.nameservers:
            resolver.nameservers = [
                dns.nameserver.Do53Nameserver(*server_and_port(server))
                for server in settings.nameservers
            ]
        kinds = ("A", "AAAA") if settings.record == "any" else (settings.record,)
        places: list[Place] = []
        for kind in kinds:
            try:
                answer = await resolver.resolve(settings.name, kind, lifetime=settings.interval_s)
            except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
                continue
            except (dns.exception.DNSException, OSError) as error:
                raise DiscoveryError(f"cannot resolve {settings.name}: {error}") from error
            places += [_place(record, kind, settings.port) for record in answer]
        return places

    def _entry(self, place: Place) -> BackendEntry:
        host, port = place
        shown = f"[{host}]" if ":" in host else host
        name = f"{host.replace('%', '-')}:{port}"
        fields = self._settings.template.model_dump(exclude_none=True)
        url = f"{self._settings.scheme}://{shown}:{port}"
        return BackendEntry(name=name, url=url, **fields)


def _place(record: object, kind: str, port: int | None) -> Place:
    if kind == "SRV":
        target = str(record.target).rstrip(".")  # type: ignore[attr-defined]
        return target, int(record.port)  # type: ignore[attr-defined]
    return str(record.address), port or 0  # type: ignore[attr-defined]
