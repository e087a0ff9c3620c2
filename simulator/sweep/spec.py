"""The sweep file: what is crossed with what.

::

    traces: [azure-conv-like, {source: conv.csv, duration_s: 600}]
    fleets: [mixed.yaml]
    policies: [motley, least-request]        # or [all]
    loads: [1, 2, 3]                         # rate scales
    seeds: 3                                 # or a list
    slo_attainment: 0.99                     # what counts as holding the SLO
    refine: 3                                # halvings between holding and failing
    trace_options: {duration_s: 600}         # for every trace; see TraceSpec
    options: {model_error: 0.3}              # see ReplayOptions
    faults: faults.yaml
    learned: learned.json                    # what a gateway kept (telemetry.learned.file)

Paths are relative to the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from router.domain.errors import ConfigError
from simulator.options import ReplayOptions
from simulator.run import policy_names
from simulator.synthetic import is_builtin
from simulator.workload import TraceSpec

_NOT_FOR_TRACES = frozenset(("source", "rate_scale"))
_NOT_FOR_OPTIONS = frozenset(("seed",))


T = TypeVar("T")


class _SweepFile(msgspec.Struct, forbid_unknown_fields=True):
    traces: list[str | dict[str, Any]]
    fleets: list[str]
    policies: list[str]
    loads: list[float] = msgspec.field(default_factory=lambda: [1.0])
    seeds: int | list[int] = 1
    slo_attainment: float = 0.99
    refine: int = 0
    trace_options: dict[str, Any] = {}
    options: dict[str, Any] = {}
    faults: str | None = None
    learned: str | None = None


@dataclass(frozen=True, slots=True)
class SweepSpec:
    """A checked sweep.

    Attributes:
        name: of the file, without its ending.
        traces: each with load 1.
        fleets: paths of fleet files.
        policies: names, expanded.
        loads: rate scales, ascending.
        seeds: all of them.
        slo_attainment: share of requests within their SLO that counts as holding it.
        refine: halvings of the interval around the frontier.
        options: replay options of every cell; the seed is the cell's.
        faults: path of a timeline; ``None`` for none.
        learned: path of what every run begins with; ``None`` for nothing.
    """

    name: str
    traces: tuple[TraceSpec, ...]
    fleets: tuple[Path, ...]
    policies: tuple[str, ...]
    loads: tuple[float, ...]
    seeds: tuple[int, ...]
    slo_attainment: float
    refine: int
    options: ReplayOptions
    faults: Path | None
    learned: Path | None = None


def load_spec(path: Path) -> SweepSpec:
    """Read a sweep file.

    Raises:
        ConfigError: unreadable, an unknown field, or values that make no sense.
        UnknownNameError: an unknown policy.
    """
    try:
        raw = msgspec.yaml.decode(path.read_bytes(), type=_SweepFile)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: {error}") from None
    _check(raw, path)
    folder = path.parent
    traces = tuple(_trace(entry, raw.trace_options, folder, path) for entry in raw.traces)
    where = f"{path}: options"
    _check_fields(ReplayOptions, raw.options, _NOT_FOR_OPTIONS, where)
    options = _convert(raw.options, ReplayOptions, where)
    return SweepSpec(
        name=path.stem,
        traces=traces,
        fleets=tuple(folder / fleet for fleet in raw.fleets),
        policies=tuple(policy_names(raw.policies)),
        loads=tuple(sorted(set(raw.loads))),
        seeds=tuple(raw.seeds if isinstance(raw.seeds, list) else range(raw.seeds)),
        slo_attainment=raw.slo_attainment,
        refine=raw.refine,
        options=options,
        faults=None if raw.faults is None else folder / raw.faults,
        learned=None if raw.learned is None else folder / raw.learned,
    )


def _check(raw: _SweepFile, path: Path) -> None:
    for name in ("traces", "fleets", "policies", "loads"):
        if not getattr(raw, name):
            raise ConfigError(f"{path}: {name} is empty; list at least one")
    if any(not (load > 0 and math.isfinite(load)) for load in raw.loads):
        raise ConfigError(f"{path}: loads must be numbers above 0, not {raw.loads}")
    if raw.seeds in (0, []) or (isinstance(raw.seeds, int) and raw.seeds < 0):
        raise ConfigError(f"{path}: seeds must be at least 1, or a list of seeds")
    if not 0 < raw.slo_attainment <= 1:
        raise ConfigError(f"{path}: slo_attainment must be in (0, 1], not {raw.slo_attainment}")
    if not 0 <= raw.refine <= 10:
        raise ConfigError(f"{path}: refine must be 0 to 10, not {raw.refine}")


def _trace(
    entry: str | dict[str, Any], common: Mapping[str, Any], folder: Path, path: Path
) -> TraceSpec:
    own = {"source": entry} if isinstance(entry, str) else dict(entry)
    if "source" not in own:
        raise ConfigError(f"{path}: a trace needs a source, a file or a built-in workload")
    source = str(own.pop("source"))
    where = f"{path}: trace {source!r}"
    merged = {**common, **own}
    if "mixed_with" in merged:
        merged["mixed_with"] = tuple(_place(name, folder) for name in merged["mixed_with"])
    _check_fields(TraceSpec, merged, _NOT_FOR_TRACES, where)
    return _convert({**merged, "source": _place(source, folder)}, TraceSpec, where)


def _place(source: str, folder: Path) -> str:
    return source if is_builtin(source) else str(folder / source)


def _check_fields(
    kind: type[Any], values: Mapping[str, Any], excluded: frozenset[str], where: str
) -> None:
    known = {f.name for f in fields(kind)} - excluded
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(
            f"{where}: unknown field {unknown[0]!r}; known: {', '.join(sorted(known))}"
        )


def _convert(values: Mapping[str, Any], kind: type[T], where: str) -> T:
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from None
