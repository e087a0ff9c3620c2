"""What differs between two configurations, for the log of a reload; secrets stay hidden."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any

from pydantic import BaseModel

from router.config.load import MotleyConfig

MASK = "***"
_SECRET = ("api_keys", "api_key", "hash", "password", "token", "secret")
_NOT_SETTINGS = frozenset(("source", "hardware", "fleet"))

HOT = (
    "aliases",
    "adapters",
    "slos",
    "policy",
    "access.keys",
    "access.keys_file",
    "access.prices",
    "fallbacks",
    "server.max_json_depth",
    "telemetry.explain_every_s",
    "telemetry.learned",
    "reliability.continuation",
)
"""Applied at once; so are the engines' keys under ``upstream``.
Of ``reliability`` the timeouts and retries are, see ``HOT_RELIABILITY``."""
COLD_PLANNER = ("enabled", "history", "placement")
"""Of ``planner`` everything is hot but these."""
HOT_RELIABILITY = (
    "connect_timeout_s",
    "first_byte_timeout_s",
    "idle_timeout_s",
    "total_timeout_s",
    "max_retries",
    "drain_timeout_s",
)


@dataclass(frozen=True, slots=True)
class Change:
    """One setting.

    Attributes:
        path: as in the file, ``server.port``.
        old, new: as text, secrets masked.
        hot: whether it is in force without a restart.
    """

    path: str
    old: str
    new: str
    hot: bool

    def __str__(self) -> str:
        return f"{self.path}: {self.old} -> {self.new}"


def changes(old: MotleyConfig, new: MotleyConfig) -> list[Change]:
    """Every setting that differs, the fleet aside (the roster tells of that)."""
    before, after = _flat(old), _flat(new)
    differing = [path for path in {**before, **after} if before.get(path) != after.get(path)]
    return [
        Change(path, _told(path, before.get(path)), _told(path, after.get(path)), is_hot(path))
        for path in differing
    ]


def is_hot(path: str) -> bool:
    """Whether a reload applies this setting."""
    if path == "server.api_keys" or path.startswith(HOT):
        return True
    section, _, name = path.partition(".")
    if section == "upstream":
        return name == "backends" or name.rpartition(".")[2].startswith("api_key")
    if section == "planner":
        return not name.startswith(COLD_PLANNER)
    return section == "reliability" and name in HOT_RELIABILITY


def masked(config: MotleyConfig) -> dict[str, Any]:
    """The whole configuration as plain data, secrets hidden, for people to read."""
    shown = {
        field.name: _masked(field.name, _plain(getattr(config, field.name)))
        for field in fields(config)
        if field.name not in _NOT_SETTINGS
    }
    return {
        "source": config.source,
        "backends": [_masked("", asdict(spec)) for spec in config.fleet.backends],
        **shown,
    }


def _flat(config: MotleyConfig) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for field in fields(config):
        if field.name not in _NOT_SETTINGS:
            _flatten(field.name, _plain(getattr(config, field.name)), flat)
    return flat


def _flatten(path: str, value: Any, into: dict[str, Any]) -> None:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            _flatten(f"{path}.{name}", inner, into)
    elif path == "access.keys" and value:
        held: dict[str, list[dict[str, Any]]] = {}
        for key in value:
            given = {what: one for what, one in key.items() if one not in (None, False, 0)}
            held.setdefault(given.pop("name"), []).append(given)
        for name, several in held.items():  # while keys are exchanged, somebody has two
            into[f"{path}[{name}]"] = several if len(several) > 1 else several[0]
    else:
        into[path] = value


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return value


def _is_secret(name: str) -> bool:
    return any(name == word or name.endswith(f"_{word}") for word in _SECRET)


def _masked(name: str, value: Any) -> Any:
    if _is_secret(name):
        several = isinstance(value, list | tuple) and value
        return [MASK] * len(value) if several else value and MASK
    if isinstance(value, Mapping):
        return {inner: _masked(str(inner), one) for inner, one in value.items()}
    if isinstance(value, list | tuple):
        return [_masked("", one) for one in value]
    if name == "url" and isinstance(value, str):
        return _without_password(value)
    return value


def _without_password(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}{MASK}@{rest.rpartition('@')[2]}" if "@" in rest else url


def _told(path: str, value: Any) -> str:
    shown = _masked(path.rpartition(".")[2], value)
    text = "none" if shown is None else str(shown)
    return text if len(text) <= 120 else f"{text[:117]}..."
