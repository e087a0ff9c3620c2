"""What a command tells: tables for people, JSON for programs, and files that could be written."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from router.domain.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType


def write_text(path: str | Path, text: str) -> None:
    """Write a file.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error


def write_json(values: Mapping[str, Any], json_path: str) -> None:
    """Write JSON to a file, or to standard output where its name is ``-``.

    Raises:
        ConfigError: the file cannot be written.
    """
    text = json.dumps(values, indent=2, allow_nan=False) + "\n"
    if json_path == "-":
        sys.stdout.write(text)
    else:
        write_text(json_path, text)


def show(
    values: Mapping[str, Any], view: Callable[[], RenderableType], json_path: str | None
) -> None:
    """Print tables, or write JSON to a file or to stdout.

    Raises:
        ConfigError: the file cannot be written.
    """
    from rich.console import Console

    if json_path is None:
        Console().print(view())
    else:
        write_json(values, json_path)
