"""What was found in another router's configuration, before it becomes a fleet file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from router.domain.errors import ConfigError

SLOWEST_USEFUL_SCRAPE_S = 5.0
"""Signals older than ``telemetry.stale_after_s`` (10 s) are forgotten; a scrape may fail once."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Something that was read and has no equivalent.

    Attributes:
        what: as spelled in the source.
        why: the reason, and what to use instead.
    """

    what: str
    why: str


@dataclass(slots=True)
class Engine:
    """One engine, as far as the source tells.

    Attributes:
        url: base URL without ``/v1``.
        served: the engine's own name for its model; empty if not told.
        public: what clients ask for, where that is another name.
        kind: "vllm" or "sglang"; empty if not told.
        gpu, tensor_parallel: empty and 0 if not told.
        name: of the backend; empty for a made-up one.
        key_env: environment variable with the engine's API key.
        fields: further settings of the backend.
    """

    url: str
    served: str = ""
    public: str = ""
    kind: str = ""
    gpu: str = ""
    tensor_parallel: int = 0
    name: str = ""
    key_env: str = ""
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Service:
    """Engines behind a Kubernetes service, or behind every service that a selector finds.

    Attributes:
        served, gpu, tensor_parallel: as in ``Engine``; "" and 0 where pods and nodes tell.
        fields: the rest of a ``discovery.kubernetes`` entry.
        template: the rest of its template.
    """

    served: str = ""
    public: str = ""
    kind: str = "vllm"
    gpu: str = ""
    tensor_parallel: int = 0
    fields: dict[str, Any] = field(default_factory=dict)
    template: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Found:
    """A configuration, taken apart.

    Attributes:
        origin: what it is, in words.
        engines, services: who serves.
        settings: ``path=value``, as ``motley serve --set`` takes them.
        aliases: further names of models: of what clients ask for to what is served.
        fallbacks: models that may answer instead, by the names clients use.
        prices: ``access.prices``, by the names clients use.
        policy: theirs; empty if not told.
        lost: what has no equivalent.
        notes: what the reader should look at.
    """

    origin: str
    engines: list[Engine] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)
    fallbacks: dict[str, list[str]] = field(default_factory=dict)
    prices: dict[str, dict[str, float]] = field(default_factory=dict)
    policy: str = ""
    lost: list[Lost] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lose(self, what: str, why: str) -> None:
        """Write down that something has no equivalent."""
        self.lost.append(Lost(what, why))

    def set(self, path: str, value: object) -> None:
        """Take over a setting."""
        self.settings.append(f"{path}={value}")

    def scrape_every(self, what: str, seconds: float) -> None:
        """Take over how often engines are read, unless that is too seldom to be of use."""
        if seconds <= SLOWEST_USEFUL_SCRAPE_S:
            self.set("telemetry.scrape_interval_s", seconds)
        else:
            self.lose(
                f"{what}={seconds:g}",
                "decisions are made on these signals: they are read every second, and forgotten "
                "after ten (telemetry.scrape_interval_s, stale_after_s)",
            )

    def lose_rest(
        self, place: str, section: Mapping[str, Any], taken: Iterable[str], why: Mapping[str, str]
    ) -> None:
        """Write down every key of a section that nobody took, those of one reason together."""
        by_reason: dict[str, list[str]] = {}
        for key, value in section.items():
            if key not in taken and not _says_nothing(value):
                by_reason.setdefault(why.get(key, UNKNOWN), []).append(str(key))
        for reason, keys in by_reason.items():
            self.lose(f"{place}.{', '.join(keys)}" if place else ", ".join(keys), reason)


def _says_nothing(value: object) -> bool:
    """Nothing, or something that is switched off."""
    if isinstance(value, dict):
        return value.get("enabled") is False or all(map(_says_nothing, value.values()))
    return value is None or value in ("", [])


_SECRET = re.compile(r"key|token|password|secret|dsn|-url\b", re.IGNORECASE)


def shown(name: str, values: Iterable[str]) -> str:
    """A flag as it was given; without its value where that may be a secret."""
    given = list(values)
    hidden = bool(_SECRET.search(name)) or any("@" in value for value in given)
    return " ".join([name, *(["..."] if hidden and given else given)])


UNKNOWN = "not a setting that this converter knows; look for it in deploy/fleets/example.yaml"


def digest(secret: str) -> str:
    """A key as the file keeps it."""
    return f"sha256:{hashlib.sha256(secret.encode()).hexdigest()}"


def base_url(url: str) -> str:
    """An engine's URL without the path of the OpenAI API, which Motley adds itself."""
    plain = url.strip().rstrip("/")
    plain = plain.removesuffix("/v1").rstrip("/")
    return plain if "://" in plain else f"http://{plain}"


def mapping(value: object, place: str) -> dict[str, Any]:
    """A section that must be a mapping; nothing at all is an empty one.

    Raises:
        ConfigError: it is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{place} must be a mapping, not {value!r:.40}")
    return value


def listing(value: object, place: str) -> list[Any]:
    """A section that must be a list; nothing at all is an empty one.

    Raises:
        ConfigError: it is something else.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise ConfigError(f"{place} must be a list, not {value!r:.40}")
    return value
