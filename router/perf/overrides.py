"""A user's own constants in YAML: read, checked, written.

::

    overrides:
      - gpu: t4
        engine: vllm
        model: llama-3.1-8b      # leave a key out to match every value
        tensor_parallel: 2
        mfu: 0.33
        mbu: 0.70
      - gpu: v100-32
        engine: vllm
        model: llama-3.1-8b
        step_s: 0.021            # a whole measured iteration (``router.perf.measured``)
        prefill_s: 0.00031
        seq_s: 0.00004
        context_s: 1.8e-07
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from router.domain.errors import ConfigError
from router.perf.priors import Override

_MATCH = {"gpu": str, "engine": str, "model": str, "tensor_parallel": int}


def load_overrides(path: Path) -> tuple[Override, ...]:
    """Overrides of a YAML file with one key, ``overrides``.

    Raises:
        ConfigError: a file that cannot be read, a key that is unknown, a value that makes no
            sense.
    """
    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(document, dict) or set(document) != {"overrides"}:
        raise ConfigError(f"{path}: expected one key, overrides, with a list under it")
    try:
        return parse_overrides(document["overrides"])
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def parse_overrides(entries: Any) -> tuple[Override, ...]:
    """Overrides of a list of mappings, as YAML gives it.

    Raises:
        ConfigError: an entry that is no mapping, an unknown key, a value that makes no sense.
    """
    if not isinstance(entries, list):
        raise ConfigError("overrides: expected a list")
    return tuple(_parse(number, entry) for number, entry in enumerate(entries, start=1))


def dump_overrides(overrides: Sequence[Override], comment: str = "") -> str:
    """YAML that ``load_overrides`` reads back, with ``comment`` on top."""
    entries = [
        {
            **{key: value for key in _MATCH if (value := getattr(override, key))},
            **{name: float(f"{value:.5g}") for name, value in override.values.items()},
        }
        for override in overrides
    ]
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    return head + yaml.safe_dump({"overrides": entries}, sort_keys=False)


def _parse(number: int, entry: Any) -> Override:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"overrides, entry {number}: expected a mapping")
    match: dict[str, Any] = {}
    values: dict[str, float] = {}
    for key, value in entry.items():
        wanted = _MATCH.get(key, float)
        fine = isinstance(value, int | float) if wanted is float else isinstance(value, wanted)
        if not fine or isinstance(value, bool):
            kind = {str: "a name", int: "a whole number", float: "a number"}[wanted]
            raise ConfigError(f"overrides, entry {number}: {key} must be {kind}, not {value!r}")
        if key in _MATCH:
            match[key] = value
        else:
            values[str(key)] = float(value)
    if not values:
        raise ConfigError(f"overrides, entry {number}: no constant to override")
    try:
        return Override(values, **match)
    except ConfigError as error:
        raise ConfigError(f"overrides, entry {number}: {error}") from error
