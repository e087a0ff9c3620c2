"""What is written of a request: facts for replay and accounting, never content.

Tenant and session are keyed hashes. The columns are those of Motley's own trace format, so the
simulator replays a record as it is; the others are result columns, which it passes over. A
request that nobody answered has no output tokens, which readers count as unanswered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from router.domain.outcome import Outcome
from router.domain.request import Request

MOST_HASHES = 4096
_HASH_MASK = (1 << 63) - 1
PIECE_ROWS, PIECES = 128, 64
"""Rows turned into columns at once, and such pieces to a row group. Turning holds the interpreter
lock, and the gateway answers requests in the same process: 8192 rows would stall it by 0.1 s."""


class RecordRow(msgspec.Struct, rename={"slo_class": "class"}, omit_defaults=True):
    """One request as it is written; times are seconds since the epoch."""

    arrival_s: float
    input_tokens: int
    output_tokens: int
    request_id: str
    status: str
    max_tokens: int | None = None
    model: str = ""
    slo_class: str = ""
    tenant: str = ""
    session: str = ""
    prefix_hashes: Sequence[int] = ()
    prefix_block_tokens: int = 0
    policy: str = ""
    backend: str = ""
    attempts: int = 0
    carried_tokens: int = 0
    finish_reason: str = ""
    cached_tokens: int | None = None
    dispatched_s: float | None = None
    first_token_s: float | None = None
    finished_s: float | None = None
    predicted_ttft_s: float | None = None
    predicted_tpot_s: float | None = None
    predicted_output_tokens: float | None = None


class RowMaker:
    """Builds rows.

    Args:
        salt: key of the hashes: the same salt gives the same hashes, so records can be joined;
            who has it can test a guess.
        policy: name of the policy that decided.
        epoch_s: seconds since the epoch at zero of the caller's clock.
    """

    def __init__(self, *, salt: bytes, policy: str, epoch_s: float) -> None:
        self._salt, self._policy, self._epoch_s = salt[:64], policy, epoch_s

    def finished(
        self, request: Request, outcome: Outcome, attempts: int, finish_reason: str = ""
    ) -> RecordRow:
        """A request whose last attempt is over."""
        first_s = outcome.seen_first_s
        row = self._row(request, outcome.status)
        row.input_tokens, row.output_tokens = outcome.question_tokens, outcome.answer_tokens
        row.backend, row.attempts = outcome.backend, attempts
        row.carried_tokens = outcome.carried_tokens
        row.cached_tokens, row.finish_reason = outcome.cached_tokens, finish_reason
        row.dispatched_s = outcome.dispatched_s + self._epoch_s
        row.first_token_s = None if first_s is None else first_s + self._epoch_s
        row.finished_s = outcome.finished_s + self._epoch_s
        row.predicted_ttft_s = _finite(outcome.predicted_ttft_s)
        row.predicted_tpot_s = _finite(outcome.predicted_tpot_s)
        row.predicted_output_tokens = _finite(outcome.predicted_output_tokens)
        return row

    def unserved(self, request: Request, status: str, now: float) -> RecordRow:
        """A request that no backend was tried for: ``rejected:REASON`` or ``cancelled``."""
        row = self._row(request, status)
        row.finished_s = now + self._epoch_s
        return row

    def _row(self, request: Request, status: str) -> RecordRow:
        return RecordRow(
            arrival_s=request.arrival_s + self._epoch_s,
            input_tokens=request.prompt_tokens,
            output_tokens=0,
            request_id=request.request_id,
            status=status,
            max_tokens=request.max_tokens,
            model=request.model,
            slo_class=request.slo_class,
            tenant=self.anonymous(request.tenant),
            session=self.anonymous(request.session),
            prefix_hashes=[h & _HASH_MASK for h in request.prefix_hashes[:MOST_HASHES]],
            prefix_block_tokens=request.prefix_block_tokens,
            policy=self._policy,
        )

    def anonymous(self, value: str) -> str:
        """A keyed hash that stands for ``value``; empty stays empty."""
        if not value:
            return ""
        plain = value.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(plain, digest_size=8, key=self._salt).hexdigest()


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None  # NaN compares false


def write_parquet(rows: Iterable[RecordRow], path: Path) -> int:
    """Write rows in batches and return how many; the file is complete or an error is raised.

    Raises:
        ImportError: pyarrow is not installed.
        OSError: the disk.
    """
    import pyarrow as pa  # noqa: PLC0415 - an extra, not a dependency
    import pyarrow.parquet as pq  # noqa: PLC0415

    schema, written = _schema(pa), 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        tables: list[Any] = []
        for piece in batched(rows, PIECE_ROWS):
            tables.append(pa.Table.from_pylist([_plain(row) for row in piece], schema))
            written += len(piece)
            if len(tables) == PIECES:
                writer.write_table(pa.concat_tables(tables).combine_chunks())
                tables.clear()
        if tables:
            writer.write_table(pa.concat_tables(tables).combine_chunks())
    return written


def batched(rows: Iterable[RecordRow], size: int) -> Iterator[list[RecordRow]]:
    """Lists of ``size`` rows, the last one shorter."""
    source = iter(rows)
    while piece := list(islice(source, size)):
        yield piece


def _plain(row: RecordRow) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in RecordRow.__struct_fields__}
    values["class"] = values.pop("slo_class")
    return values


def _schema(pa: Any) -> Any:
    """Explicit, so that a file of rejected requests only has the same columns."""
    kinds = {
        "arrival_s": pa.float64(),
        "input_tokens": pa.int64(),
        "output_tokens": pa.int64(),
        "max_tokens": pa.int64(),
        **dict.fromkeys(("model", "class", "tenant", "session"), pa.string()),
        "prefix_hashes": pa.list_(pa.int64()),
        "prefix_block_tokens": pa.int32(),
        **dict.fromkeys(
            ("request_id", "policy", "status", "backend", "finish_reason"), pa.string()
        ),
        **dict.fromkeys(("attempts", "carried_tokens"), pa.int32()),
        "cached_tokens": pa.int64(),
        **dict.fromkeys(("dispatched_s", "first_token_s", "finished_s"), pa.float64()),
        **dict.fromkeys(
            ("predicted_ttft_s", "predicted_tpot_s", "predicted_output_tokens"), pa.float64()
        ),
    }
    return pa.schema(list(kinds.items()))
