"""What keeps ``motley serve`` from starting, and what would never do what it says."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from router.config.access import GrantSection
    from router.config.load import MotleyConfig

_VARIABLE = re.compile(r"\$(\w+|\{\w+\})")
_EVERYWHERE = ("0.0.0.0", "::")


def refuse(config: MotleyConfig) -> None:
    """Look at what is wrong wherever the file is served.

    Raises:
        ConfigError: an address, port, network or class that cannot be.
    """
    from router.domain.errors import ConfigError
    from router.gateway.access.oidc import check_url
    from router.gateway.admin.addresses import parse_networks
    from router.gateway.batch.build import check_class
    from router.gateway.upstream import parse_address

    for spec in config.fleet.backends:
        if spec.url:
            parse_address(spec.name, spec.url)
    parse_networks(config.admin.worker_networks)
    check_class(config)
    oidc = config.access.oidc
    if oidc is not None and oidc.jwks.startswith(("http://", "https://")):
        check_url(oidc.jwks)
    admin, server = config.admin, config.server
    same = admin.host == server.host or admin.host in _EVERYWHERE or server.host in _EVERYWHERE
    if admin.port and same and 0 <= server.port - admin.port < server.workers:
        raise ConfigError(
            f"admin.port is {admin.port} and server.port {server.port}: give the admin surface a "
            "port of its own, with one more for each worker"
        )


def doubts(config: MotleyConfig, *, elsewhere: bool) -> list[str]:
    """What may be otherwise on the machine that serves, and what would never happen.

    Args:
        config: as loaded.
        elsewhere: whether it is served in a cluster, which has other files and variables.
    """
    return [
        *([] if elsewhere else _about_files(config)),
        *_about_names(config),
        *_about_money(config),
        *_about_time(config),
        *_about_itself(config),
    ]


def _about_files(config: MotleyConfig) -> list[str]:
    from router.gateway.certificates import load_files
    from router.gateway.identity import Identity

    tls, oidc = config.server.tls, config.access.oidc
    needed: list[Callable[[], object]] = [lambda: Identity(config.upstream)]
    if tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        needed.append(lambda: load_files(tls, context))
    found = [told for told in map(_complaint, needed) if told]
    if oidc is not None and "://" not in oidc.jwks and not Path(oidc.jwks).is_file():
        found.append(f"access.oidc.jwks: there is no file {oidc.jwks}")
    return [f"{told}; where that is so 'motley serve' does not start" for told in found]


def _complaint(needed: Callable[[], object]) -> str:
    from router.domain.errors import ConfigError

    try:
        needed()
    except ConfigError as error:
        return str(error)
    return ""


def _about_names(config: MotleyConfig) -> list[str]:
    """Names that hide others, and those that fit nothing."""
    served, found = config.fleet.models, []
    for alias in sorted(set(config.aliases) & (served | set(config.adapters))):
        what = "adapter" if alias in config.adapters else "model"
        found.append(f"aliases: {alias!r} hides the {what} of that name: nobody can ask for it")
    for adapter in sorted(set(config.adapters) & served):
        found.append(f"adapters: {adapter!r} hides the model of that name: nobody can ask for it")
    for holder, grant in _grants(config):
        strange = {*(grant.classes or ()), grant.default_class or ""} - {*config.slos, ""}
        if strange:
            found.append(f"{holder} may use the class {', '.join(sorted(strange))}: there is none")
    known = served | set(config.aliases) | set(config.adapters)
    if config.discovery:  # others may come
        return found
    for holder, grant in _grants(config):
        unserved = sorted(set(grant.models or ()) - known)
        if unserved:
            found.append(f"{holder} may use {', '.join(unserved)}, which nobody serves here")
    return found


def _about_money(config: MotleyConfig) -> list[str]:
    paying = [holder for holder, grant in _grants(config) if grant.usd_per_day is not None]
    prices, served = set(config.access.prices), config.fleet.models
    found = []
    strange, free = sorted(prices - served), sorted(served - prices)
    if strange and not config.discovery:
        found.append(
            f"access.prices names {', '.join(strange)}, which no backend serves; aliases and "
            "adapters cost what their model does"
        )
    if paying and prices and free:
        found.append(
            f"{paying[0]} has a budget in USD, and access.prices says nothing of "
            f"{', '.join(free)}: that costs nothing"
        )
    return found


def _about_time(config: MotleyConfig) -> list[str]:
    times = config.reliability
    total_s = times.total_timeout_s
    return [
        f"reliability.{name} is {limit_s:g} and total_timeout_s {total_s:g}: that is over first"
        for name in ("connect_timeout_s", "first_byte_timeout_s", "idle_timeout_s")
        if (limit_s := getattr(times, name)) > total_s
    ]


def _about_itself(config: MotleyConfig) -> list[str]:
    found = []
    server = config.server
    if any(_VARIABLE.fullmatch(key) for key in (*server.api_keys, *config.admin.api_keys)):
        found.append(
            "a key that looks like a variable is taken as it stands: nothing is put in its place; "
            "'motley keys create' makes keys"
        )
    for spec in config.fleet.backends:
        parts = urlsplit(spec.url or "")
        own = parts.hostname in (server.host, "127.0.0.1", "localhost", "::1")
        if own and server.port and parts.port == server.port:
            found.append(f"{spec.name}: {spec.url} is the gateway itself; every request goes round")
    return found


def _grants(config: MotleyConfig) -> list[tuple[str, GrantSection]]:
    from router.domain.errors import ConfigError
    from router.gateway.access.keys_file import read_keys

    keys = list(config.access.keys)
    if config.access.keys_file:
        with suppress(ConfigError):  # told elsewhere
            keys += read_keys(Path(config.access.keys_file))
    found: list[tuple[str, GrantSection]] = [(f"the key {key.name!r}", key) for key in keys]
    if config.access.oidc is not None:
        found.append(("access.oidc.grant", config.access.oidc.grant))
    return found
