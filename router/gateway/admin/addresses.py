"""Where a worker may be: whoever registers one makes the gateway talk to that address.

Refused always: link-local and the clouds' metadata services, multicast, unspecified and reserved
addresses. ``admin.worker_networks`` narrows it down further. A name is resolved when it is
registered, and the address is looked at again at every connection, so that a name which later
points elsewhere gains nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from urllib.parse import urlsplit

from router.config.access import AdminSection
from router.domain.errors import ConfigError
from router.gateway.upstream import Guard

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
METADATA = frozenset(
    map(ip_address, ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16"))
)
"""AWS, GCP and Azure share the first; then AWS over IPv6, Alibaba, Azure's wire server."""


def guard(settings: AdminSection) -> Guard:
    """The rule for addresses.

    Raises:
        ConfigError: a network that is none.
    """
    networks = parse_networks(settings.worker_networks)

    def refusal(text: str) -> str:
        address = _unwrapped(ip_address(text.partition("%")[0]))
        if address in METADATA:
            return f"{address} is a cloud's metadata service"
        if address.is_link_local or address.is_multicast or address.is_unspecified:
            return f"{address} is no place for a worker (link-local, multicast or unspecified)"
        if address.is_reserved:
            return f"{address} is reserved"
        if networks and not any(address in network for network in networks):
            return f"{address} is in none of admin.worker_networks"
        return ""

    return refusal


def parse_networks(texts: Sequence[str]) -> list[Network]:
    """Networks in CIDR notation.

    Raises:
        ConfigError: one that is none.
    """
    networks: list[Network] = []
    for text in texts:
        try:
            networks.append(ip_network(text))
        except ValueError as error:
            raise ConfigError(
                f"admin.worker_networks: {text!r} is no network like 10.0.0.0/8: {error}"
            ) from error
    return networks


async def check(url: str, settings: AdminSection) -> None:
    """Resolve a worker's URL and look at every address it has.

    Raises:
        ConfigError: a scheme or an address that is not allowed, or a name without one.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError(f"the worker's url {url!r} cannot be read: {error}") from error
    if parts.scheme not in settings.worker_schemes:
        allowed = ", ".join(settings.worker_schemes)
        raise ConfigError(f"workers may be reached by {allowed} only, not {url!r}")
    host = parts.hostname or ""
    rule = guard(settings)
    for address in await _resolved(host):
        reason = rule(address)
        if reason:
            raise ConfigError(f"the worker {host!r} is refused: {reason}")


async def _resolved(host: str) -> list[str]:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"the worker's host {host!r} cannot be resolved: {error}") from error
    return sorted({str(address[0]) for *_, address in found})


def _unwrapped(address: Address) -> Address:
    """An IPv4 address that hides in an IPv6 one (mapped, 6to4, NAT64) is judged as what it is."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


_NAT64 = IPv6Network("64:ff9b::/96")
