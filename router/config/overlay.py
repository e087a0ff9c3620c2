"""Single settings from the command line, laid over a file: ``--set reliability.queue_size=10``."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from router.config.yaml_error import in_a_line
from router.domain.errors import ConfigError

_PART = re.compile(r'"([^"]+)"|([^."=]+)')


def overlaid(content: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """The content of a file with settings laid over it.

    Args:
        content: as read.
        settings: ``path=value``; the value is YAML, parts of the path with dots are quoted.

    Raises:
        ConfigError: one that cannot be read, or whose path leads through something that is no
            section.
    """
    changed = copy.deepcopy(dict(content))
    for setting in settings:
        path, value = _read(setting)
        place = changed
        for part in path[:-1]:
            inner = place.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {setting}: {part!r} is no section")
            place = inner
        place[path[-1]] = value
    return changed


def _read(setting: str) -> tuple[list[str], Any]:
    path, mark, text = _split(setting)
    if not mark or not path:
        raise ConfigError(f"--set {setting!r} must be path=value, for example server.port=8000")
    try:
        return path, yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"--set {setting}: the value is not valid YAML: {in_a_line(error)}"
        ) from error


def _split(setting: str) -> tuple[list[str], str, str]:
    path: list[str] = []
    at = 0
    while at < len(setting) and setting[at] != "=":
        match = _PART.match(setting, at)
        if match is None:
            return [], "", ""
        path.append(match[1] or match[2])
        at = match.end()
        if at < len(setting) and setting[at] == ".":
            at += 1
    return path, setting[at : at + 1], setting[at + 1 :]
