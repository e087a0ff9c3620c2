"""From entries of ``backends`` to a fleet: every backend named, with its URL, and able to run."""

from __future__ import annotations

import re
from collections import Counter

from router.config.schema import BackendEntry
from router.domain.errors import ConfigError
from router.domain.fleet import BackendSpec, Fleet
from router.perf.hardware import Hardware

_NAME = re.compile(r"[A-Za-z0-9._:@-]+")


def build_fleet(entries: list[BackendEntry], hardware: Hardware | None = None) -> Fleet:
    """Name the backends (``<gpu>-<n>``, from 0 per kind) and check that each can run.

    Raises:
        ConfigError: no backend, a name twice, or as many URLs as ``count`` are missing.
        ImpossibleFleetError: a model that does not fit or an engine that will not run.
    """
    if not entries:
        raise ConfigError("the fleet is empty: list at least one entry under 'backends'")
    known = hardware or Hardware()
    numbers: Counter[str] = Counter()
    backends: list[BackendSpec] = []
    for position, entry in enumerate(entries):
        alike = [
            _spec(entry, name, url)
            for url, name in zip(urls_of(entry, position), names_of(entry, numbers), strict=True)
        ]
        known.check_feasible(alike[0])
        backends += alike
    _check_names(backends)
    return Fleet(tuple(backends))


def _spec(entry: BackendEntry, name: str, url: str | None) -> BackendSpec:
    fields = entry.model_dump(exclude={"count", "url", "name"})
    return BackendSpec(name=name, url=url.rstrip("/") if url else None, **fields)


def urls_of(entry: BackendEntry, position: int) -> list[str | None]:
    """The URL of each backend of an entry.

    Args:
        entry: of ``backends``.
        position: its place in that list.

    Raises:
        ConfigError: there is not one URL for each.
    """
    if not isinstance(entry.url, list):
        if entry.url is not None and entry.count > 1:
            raise ConfigError(
                f"backends[{position}]: count is {entry.count} and there is one url; "
                f"give a list of {entry.count} urls"
            )
        return [entry.url] * entry.count
    if len(entry.url) != entry.count:
        raise ConfigError(
            f"backends[{position}]: count is {entry.count} and there are {len(entry.url)} urls; "
            f"give exactly one url per backend"
        )
    return list(entry.url)


def names_of(entry: BackendEntry, numbers: Counter[str]) -> list[str]:
    """The name of each backend of an entry; ``numbers`` counts those named after their GPU."""
    if entry.name is not None:
        if entry.count == 1:
            return [entry.name]
        return [f"{entry.name}-{n}" for n in range(entry.count)]
    first = numbers[entry.gpu]
    numbers[entry.gpu] += entry.count
    return [f"{entry.gpu}-{first + n}" for n in range(entry.count)]


def _check_names(backends: list[BackendSpec]) -> None:
    counts = Counter(b.name for b in backends)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise ConfigError(f"backend names must be unique; used more than once: {', '.join(twice)}")
    odd = sorted(name for name in counts if not _NAME.fullmatch(name))
    if odd:
        raise ConfigError(
            f"backend name {odd[0]!r} cannot be used: names travel in HTTP headers, paths and "
            f"metric labels; use ASCII letters, digits and . _ - : @"
        )
