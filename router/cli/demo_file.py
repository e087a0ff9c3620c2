"""The running demo's fleet file: the gateway reads it again when it changes, as in service."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from router.domain.errors import ConfigError, UnknownNameError
from router.policies.registry import POLICIES


def path_of(port: int) -> Path:
    """Where the demo at this port keeps its file: in a folder of this user's own."""
    return Path(tempfile.gettempdir()) / f"motley-demo-{os.getuid()}" / f"{port}.yaml"


@contextmanager
def written(document: Mapping[str, Any], port: int) -> Iterator[Path]:
    """The file, for as long as the demo runs.

    Raises:
        ConfigError: it cannot be written.
    """
    path = path_of(port)
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write(path, document)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def kept(record: Path | None) -> Iterator[Path | None]:
    """Where to record the traffic: as asked, else for as long as the demo runs.

    Without pyarrow, which an install without extras lacks, nowhere.
    """
    if record is not None or find_spec("pyarrow") is None:
        yield record
        return
    with tempfile.TemporaryDirectory(prefix="motley-demo-record-") as folder:
        yield Path(folder)


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write the whole file at once, so that nobody reads half of it."""
    half = path.with_suffix(".half")
    half.write_text(yaml.safe_dump(dict(document), sort_keys=False))
    half.replace(path)


def with_urls(fleet: Mapping[str, Any], urls: list[str]) -> dict[str, Any]:
    """A fleet document with every engine at its URL, in the order of the file."""
    document = deepcopy(dict(fleet))
    left = iter(urls)
    for entry in document["backends"]:
        entry["url"] = [next(left) for _ in range(entry.get("count", 1))]
    return document


def switch_policy(port: int, name: str) -> str:
    """Put another policy in force at the demo on this port.

    Returns:
        A sentence on what happens.

    Raises:
        ConfigError: no demo runs there.
        UnknownNameError: no such policy.
    """
    if name not in POLICIES:
        raise UnknownNameError("policy", name, tuple(POLICIES))
    path = path_of(port)
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"no demo runs at port {port}: start one with motley demo, or say its --port"
        ) from error
    before = document["policy"]["name"]
    document["policy"]["name"] = name
    write(path, document)
    return f"the gateway decides by {name} instead of {before} within a second"
