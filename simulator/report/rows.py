"""One row per request and run, as CSV, JSONL or Parquet; replayable as a trace."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from simulator.classes import qoe_column
from simulator.results import RunResult, Status, latencies
from simulator.traces.write import Row, write_rows

COLUMNS = (
    *("request_id", "policy", "seed", "arrival_s", "input_tokens", "output_tokens"),
    *("max_tokens", "model", "class", "tenant", "session"),
    *("status", "backend", "gpu", "attempts"),
    *("dispatched_s", "first_token_s", "finished_s", "ttft_s", "tpot_s", "e2e_s"),
    *("cached_tokens", "slo_met", "qoe"),
)


def write_requests(results: Sequence[RunResult], path: Path) -> None:
    """Write every request of every run.

    Raises:
        BadInputError: an ending that names no format, or Parquet without pyarrow.
    """
    write_rows((row for result in results for row in request_rows(result)), COLUMNS, path)


def request_rows(result: RunResult) -> Iterator[Row]:
    """The requests of one run, in order of arrival."""
    records, trace, columns = result.records, result.trace, latencies(result)
    qoe = qoe_column(result, columns)
    for i in range(len(records)):
        backend = records.backend[i]
        spec = result.backends[backend] if backend >= 0 else None
        yield {
            "request_id": str(i),
            "policy": result.policy,
            "seed": result.seed,
            "arrival_s": trace.arrival_s[i],
            "input_tokens": trace.input_tokens[i],
            "output_tokens": trace.output_tokens[i],
            "max_tokens": trace.max_tokens[i] or None,
            "model": trace.model[i],
            "class": trace.slo_class[i],
            "tenant": trace.tenant[i],
            "session": trace.session[i],
            "status": Status(records.status[i]).name.lower(),
            "backend": spec.name if spec else "",
            "gpu": spec.gpu if spec else "",
            "attempts": records.attempts[i],
            "dispatched_s": _known(records.dispatched_s[i]),
            "first_token_s": _known(records.first_token_s[i]),
            "finished_s": _known(records.finished_s[i]),
            "ttft_s": _known(float(columns.ttft_s[i])),
            "tpot_s": _known(float(columns.tpot_s[i])),
            "e2e_s": _known(float(columns.e2e_s[i])),
            "cached_tokens": records.cached_tokens[i],
            "slo_met": bool(columns.slo_met[i]),
            "qoe": _known(float(qoe[i])),
        }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
