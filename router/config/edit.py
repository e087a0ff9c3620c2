"""Changes one setting of ``planner`` in a YAML file and leaves every other character as it was."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from router.config.load import load_config
from router.domain.errors import ConfigError


def write_weights(path: Path, weights: Mapping[str, float]) -> None:
    """Set ``planner.weights``; as ``write_numbers``."""
    write_numbers(path, "weights", weights)


def write_numbers(path: Path, key: str, numbers: Mapping[str, float]) -> None:
    """Set a mapping of numbers in the ``planner`` section; comments and all else stay.

    The new file is checked before it takes the old one's place, at once, so that a gateway that
    watches it never reads half of it.

    Raises:
        ConfigError: the file cannot be read or written, or would no longer be valid.
    """
    try:
        text = path.read_text(encoding="utf-8")
        draft = path.with_name(f".{path.name}.new")
        draft.write_text(with_numbers(text, key, numbers), encoding="utf-8")
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot edit {path}: {error}") from error
    try:
        load_config(draft)
        os.replace(draft, path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)


def with_numbers(text: str, key: str, numbers: Mapping[str, float]) -> str:
    """The text of a fleet file with other numbers under ``planner.<key>``.

    Raises:
        yaml.YAMLError: it is no YAML.
    """
    pairs = (f"{_plain(name)}: {number:.6g}" for name, number in numbers.items())
    value = "{" + ", ".join(pairs) + "}"
    root = yaml.compose(text, yaml.SafeLoader)
    planner = _child(root, "planner")
    if planner is None:
        return f"{text.rstrip()}\n\nplanner:\n  {key}: {value}\n"
    found = _child(planner, key)
    if found is not None:
        return text[: found.start_mark.index] + value + text[_end(found) :]
    if isinstance(planner, yaml.MappingNode) and planner.value and not planner.flow_style:
        first = planner.value[0][0].start_mark
        return text[: first.index] + f"{key}: {value}\n{' ' * first.column}" + text[first.index :]
    if isinstance(planner, yaml.MappingNode):
        inside = text[planner.start_mark.index : planner.end_mark.index].strip("{} ")
        more = f", {inside}" if inside else ""
        filled = f"{{{key}: {value}{more}}}"
        return text[: planner.start_mark.index] + filled + text[planner.end_mark.index :]
    at = planner.end_mark.index  # "planner:" and nothing after it
    gap = "" if text[at - 1 : at] == " " else " "
    return text[:at] + f"{gap}{{{key}: {value}}}" + text[at:]


def _plain(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z][\w./-]*", name) else json.dumps(name)


def _child(node: yaml.Node | None, name: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for key, value in node.value if key.value == name), None)


def _end(node: yaml.Node) -> int:
    """Where a value ends; a block mapping's own mark is past the comments that follow it."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style and node.value:
        return _end(node.value[-1][1])
    return int(node.end_mark.index)
