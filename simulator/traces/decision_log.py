"""A decision log as a trace: what ``motley serve`` decided about, replayed with what came of it.

Each ``dispatch`` line tells a request, its ``complete`` line the tokens it really had. Requests
that were rejected, cancelled or failed are counted as unanswered: nobody knows how long their
answers would have been. Requests come in the order in which they ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from simulator.traces.parsing import Numbered, shorten
from simulator.traces.record import ReadReport, TraceRecord
from simulator.traces.source import Line

_ENDINGS = frozenset(("fail", "refuse", "cancel"))


def read_decision_log(lines: Iterator[Line], report: ReadReport) -> Iterator[Numbered]:
    """Yield the completed requests of a decision log; holds those in flight only."""
    decoder = msgspec.json.Decoder(dict[str, Any])
    pending: dict[str, dict[str, Any]] = {}
    for number, text in lines:
        try:
            line = decoder.decode(text)
            record = _take(line, pending, report)
        except (msgspec.DecodeError, ValueError) as error:
            report.bad(number, f"{error} in {shorten(text)}")
        except KeyError as error:
            report.bad(number, f"{error} is missing in {shorten(text)}")
        else:
            if record is not None:
                yield number, record
    report.unanswered += len(pending)


def _take(
    line: dict[str, Any], pending: dict[str, dict[str, Any]], report: ReadReport
) -> TraceRecord | None:
    """Follow one call; returns the request that it completes, if any."""
    call = line["call"]
    if call == "dispatch":
        request = line["args"]["request"]
        if "reject" in line["answer"]:
            report.unanswered += 1
        else:
            pending[request["request_id"]] = request
        return None
    if call == "complete":
        known = pending.pop(line["args"]["request_id"], None)
        return _record(known, line["args"]) if known is not None else None
    if call in _ENDINGS and pending.pop(line["args"]["request_id"], None) is not None:
        report.unanswered += 1
    return None


def _record(request: dict[str, Any], counts: dict[str, Any]) -> TraceRecord:
    prompt = int(counts.get("prompt_tokens") or request["prompt_tokens"])
    block = int(request["prefix_block_tokens"])
    hashes = tuple(int(h) & (2**63 - 1) for h in request["prefix_hashes"])
    return TraceRecord(
        float(request["arrival_s"]),
        prompt,
        int(counts["output_tokens"]),
        model=request["model"],
        slo_class=request["slo_class"],
        tenant=request["tenant"],
        session=request["session"],
        max_tokens=request["max_tokens"],
        prefix_hashes=hashes[: prompt // block] if block else (),
        prefix_block_tokens=block if hashes else 0,
    )
