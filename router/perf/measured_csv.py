"""A user's CSV of measurements, as groups of measurements per backend.

Two kinds of rows, told apart by their columns; either kind may name ``gpu``, ``model``,
``engine``, ``engine_version``, ``tensor_parallel`` and ``quantization`` per row:

- iterations: ``prefill_tokens, decode_seqs, context_tokens, time_s`` (or ``time_ms``), optionally
  ``prefill_pairs`` (default: one fresh prompt, n^2/2);
- load points: ``concurrency, input_tokens, output_tokens`` and ``tpot_s`` or ``ttft_s`` (or
  ``_ms``), from a load generator that keeps ``concurrency`` requests in flight. A TTFT counts at
  concurrency 1 only: above, it is mostly queueing.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from router.domain.errors import ConfigError, TraceError
from router.domain.fleet import BackendSpec
from router.perf.build import check_feasible, engine_defaults
from router.perf.catalog import Catalog
from router.perf.feasible import quantization_of
from router.perf.measurements import (
    API_S,
    Measurement,
    Phase,
    Setup,
    Term,
    loaded_decode_terms,
    prefill_terms,
)

_ITERATION = {"prefill_tokens", "decode_seqs", "context_tokens"}
_LOAD = {"concurrency", "input_tokens", "output_tokens"}
_SPEC = ("gpu", "model", "engine", "engine_version", "quantization")
_OPTIONAL = {*_SPEC, "tensor_parallel", "prefill_pairs"}
_TIMES = {f"{what}_{unit}" for what in ("time", "ttft", "tpot") for unit in ("s", "ms")}

Row = Mapping[str, str]


@dataclass(slots=True)
class MeasuredBackend:
    """The measurements of one backend.

    Attributes:
        spec: the backend.
        measurements: what its constants can be fitted to.
        ignored: times that say nothing about iterations: TTFT above concurrency 1.
    """

    spec: BackendSpec
    measurements: list[Measurement] = field(default_factory=list)
    ignored: int = 0


def read_measurements(
    path: Path, defaults: Mapping[str, str], catalog: Catalog
) -> tuple[MeasuredBackend, ...]:
    """The backends of a CSV file; ``defaults`` fill in the columns it lacks.

    Raises:
        ConfigError: a file that cannot be read, columns that are missing or unknown, a backend
            that cannot exist.
        TraceError: a line with a value that makes no sense; names file and line.
    """
    groups: dict[tuple[str, ...], MeasuredBackend] = {}
    for line, row in _read(path, defaults):
        try:
            _add(groups, row, catalog)
        except ValueError as error:
            raise TraceError(f"cannot use this line: {error}", path=str(path), line=line) from error
    if not any(group.measurements for group in groups.values()):
        raise ConfigError(f"{path} holds no usable measurement")
    return tuple(group for group in groups.values() if group.measurements)


def _read(path: Path, defaults: Mapping[str, str]) -> Iterator[tuple[int, Row]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            _check_columns(path, reader.fieldnames or (), defaults)
            for row in reader:
                if None in row:
                    message = "more values than columns"
                    raise TraceError(message, path=str(path), line=reader.line_num)
                filled = {key: value for key, value in row.items() if value}
                yield reader.line_num, {**defaults, **filled}
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} is not a CSV file: {error}") from error


def _check_columns(path: Path, columns: Sequence[str], defaults: Mapping[str, str]) -> None:
    have = set(columns)
    unknown = sorted(have - _ITERATION - _LOAD - _OPTIONAL - _TIMES)
    if unknown:
        raise ConfigError(f"{path}: unknown column {unknown[0]!r}; see motley calibrate --help")
    timed = have & {"time_s", "time_ms"} if have >= _ITERATION else have & _TIMES
    if not timed or not (have >= _ITERATION or have >= _LOAD):
        raise ConfigError(
            f"{path}: expected the columns {', '.join(sorted(_ITERATION))}, time_s, "
            f"or {', '.join(sorted(_LOAD))} and tpot_s or ttft_s"
        )
    for name in ("gpu", "model"):
        if name not in have and name not in defaults:
            raise ConfigError(f"{path}: no column {name!r}; name it with --{name}")


def _add(groups: dict[tuple[str, ...], MeasuredBackend], row: Row, known: Catalog) -> None:
    spec = _spec(row)
    key = (*(getattr(spec, name) for name in _SPEC), str(spec.tensor_parallel))
    if key not in groups:
        check_feasible(replace(spec, name=f"{spec.gpu} in the CSV"), catalog=known)
        groups[key] = MeasuredBackend(spec)
    group = groups[key]
    found = _load_points if "concurrency" in row else _iterations
    for measurement in found(row, spec, known):
        if measurement is None:
            group.ignored += 1
        else:
            group.measurements.append(measurement)


def _spec(row: Row) -> BackendSpec:
    engine = row.get("engine", "vllm")
    return BackendSpec(
        name="csv",
        gpu=row["gpu"],
        engine=engine,  # type: ignore[arg-type]  # check_feasible refuses unknown engines
        model=row["model"],
        tensor_parallel=int(_number({"tensor_parallel": "1", **row}, "tensor_parallel", 1)),
        engine_version=row.get("engine_version", ""),
        quantization=row.get("quantization", ""),
    )


def _setup(spec: BackendSpec, known: Catalog) -> Setup:
    quantization = quantization_of(spec, known).name
    return Setup(spec.gpu, spec.model, spec.engine, spec.tensor_parallel, quantization)


def _iterations(row: Row, spec: BackendSpec, known: Catalog) -> Iterator[Measurement]:
    prefill = _number(row, "prefill_tokens", 0)
    decode = _number(row, "decode_seqs", 0)
    if prefill + decode == 0:
        raise ValueError("prefill_tokens and decode_seqs are both 0")
    pairs = _number(row, "prefill_pairs", 0) if "prefill_pairs" in row else prefill**2 / 2
    term = Term(prefill, decode, _number(row, "context_tokens", 0), pairs)
    phase: Phase = "decode" if prefill == 0 else "mixed" if decode else "prefill"
    time_s = _seconds(row, "time")
    if time_s is None:
        raise ValueError("no time_s")
    yield Measurement(_setup(spec, known), phase, (term,), time_s)


def _load_points(row: Row, spec: BackendSpec, known: Catalog) -> Iterator[Measurement | None]:
    clients = int(_number(row, "concurrency", 1))
    prompt, output = _number(row, "input_tokens", 1), _number(row, "output_tokens", 1)
    setup = _setup(spec, known)
    ttft_s, tpot_s = _seconds(row, "ttft"), _seconds(row, "tpot")
    if ttft_s is None and tpot_s is None:
        raise ValueError("neither ttft_s nor tpot_s")
    if tpot_s is not None:
        yield Measurement(setup, "decode", loaded_decode_terms(clients, prompt, output), tpot_s)
    if ttft_s is not None and clients == 1 and ttft_s > API_S:
        chunk = engine_defaults(spec, catalog=known).max_num_batched_tokens
        terms = prefill_terms(round(prompt), chunk)
        yield Measurement(setup, "prefill", terms, ttft_s, API_S)
    elif ttft_s is not None:
        yield None


def _seconds(row: Row, what: str) -> float | None:
    """A time of the row in seconds, whichever unit its column has."""
    for unit, factor in (("s", 1.0), ("ms", 1e-3)):
        name = f"{what}_{unit}"
        if name in row:
            value = _number(row, name, 0) * factor
            if value == 0.0:
                raise ValueError(f"{name} is 0")
            return value
    return None


def _number(row: Row, name: str, least: float) -> float:
    try:
        value = float(row[name])
    except ValueError:
        raise ValueError(f"{name} is {row[name]!r}, not a number") from None
    except KeyError:
        raise ValueError(f"{name} is missing") from None
    if not math.isfinite(value) or value < least:
        raise ValueError(f"{name} is {row[name]}, expected {least:g} or more")
    return value
