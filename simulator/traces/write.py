"""A trace in Motley's own format: CSV, JSONL or Parquet by the ending, gzip on top."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from router.domain.errors import BadInputError
from simulator.traces.columns import Trace
from simulator.traces.record import TraceRecord

Row = dict[str, object]

_COLUMNS = (
    *("arrival_s", "input_tokens", "output_tokens", "max_tokens", "model", "class"),
    *("tenant", "session", "prefix_hashes", "prefix_block_tokens"),
)


def write_trace(trace: Trace, path: Path) -> None:
    """Write a trace; reading it back gives the same requests.

    Raises:
        BadInputError: the ending is not .csv, .jsonl or .parquet (each also .gz but Parquet),
            or pyarrow is missing for Parquet.
    """
    write_rows((_row(record) for record in trace.records()), _COLUMNS, path)


def write_rows(rows: Iterable[Row], columns: Iterable[str], path: Path) -> None:
    """Write rows of the given columns in the format that the path's ending names.

    Raises:
        BadInputError: as ``write_trace``.
    """
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[-1]
    if kind == "parquet" and not path.name.endswith(".gz"):
        _write_parquet(rows, tuple(columns), path)
    elif kind == "csv":
        with _open_text(path) as file:
            writer = csv.DictWriter(file, tuple(columns))
            writer.writeheader()
            writer.writerows(_flat(row) for row in rows)
    elif kind == "jsonl":
        encode = msgspec.json.Encoder().encode
        with _open_text(path) as file:
            for row in rows:
                known = {name: value for name, value in row.items() if value not in (None, "", ())}
                file.write(encode(known).decode() + "\n")
    else:
        raise BadInputError(
            f"{path}: cannot tell the format; end the name with .csv, .jsonl (both also .gz) or "
            ".parquet"
        )


@contextmanager
def _open_text(path: Path) -> Iterator[IO[str]]:
    if path.name.endswith(".gz"):
        # No time stamp inside, so that equal traces are equal bytes (I5).
        with (
            path.open("wb") as raw,
            gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as packed,
            io.TextIOWrapper(packed, encoding="utf-8", newline="") as text,
        ):
            yield text
    else:
        with path.open("w", encoding="utf-8", newline="") as text:
            yield text


def _row(record: TraceRecord) -> Row:
    return {
        "arrival_s": record.arrival_s,
        "input_tokens": record.input_tokens,
        "output_tokens": record.output_tokens,
        "max_tokens": record.max_tokens,
        "model": record.model,
        "class": record.slo_class,
        "tenant": record.tenant,
        "session": record.session,
        "prefix_hashes": record.prefix_hashes,
        "prefix_block_tokens": record.prefix_block_tokens or None,
    }


def _flat(row: Row) -> Row:
    return {
        name: " ".join(map(str, value)) if isinstance(value, tuple) else value
        for name, value in row.items()
    }


_BATCH_ROWS = 16_384


def _write_parquet(rows: Iterable[Row], columns: tuple[str, ...], path: Path) -> None:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra, not a dependency
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError:
        raise BadInputError(
            f"{path}: writing Parquet needs pyarrow: pip install 'motley-router[report]'"
        ) from None
    schema = pa.schema([(name, _arrow_type(name, pa)) for name in columns])
    with pq.ParquetWriter(path, schema) as writer:
        batch: list[Row] = []
        for row in rows:
            batch.append(row)
            if len(batch) == _BATCH_ROWS:
                writer.write_table(pa.Table.from_pylist(batch, schema))
                batch.clear()
        writer.write_table(pa.Table.from_pylist(batch, schema))


def _arrow_type(name: str, pa: object) -> object:
    if name == "prefix_hashes":
        return pa.list_(pa.int64())  # type: ignore[attr-defined]
    if name.endswith("_s"):
        return pa.float64()  # type: ignore[attr-defined]
    if name.endswith("_tokens") or name in ("attempts", "seed"):
        return pa.int64()  # type: ignore[attr-defined]
    if name == "qoe":
        return pa.float64()  # type: ignore[attr-defined]
    if name == "slo_met":
        return pa.bool_()  # type: ignore[attr-defined]
    return pa.string()  # type: ignore[attr-defined]
