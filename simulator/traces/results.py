"""What others measured, replayed: result files of ``vllm bench serve`` and GuideLLM.

vLLM (and SGLang's ``bench_serving``) with ``--save-detailed`` writes parallel arrays
``input_lens``, ``output_lens``, ``errors`` and, in newer versions, ``start_times``. GuideLLM
writes ``benchmarks[].requests.successful[]`` with ``request_start_time`` (older:
``start_time``), ``prompt_tokens`` and ``output_tokens``. Both are one JSON document, so these
two readers hold the whole file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from router.domain.errors import TraceError
from simulator.traces.parsing import Numbered
from simulator.traces.record import ReadReport, TraceRecord
from simulator.traces.source import read_all

_T = TypeVar("_T")


class _VllmBench(msgspec.Struct):
    input_lens: list[int]
    output_lens: list[int]
    start_times: list[float] | None = None
    errors: list[str | None] | None = None


class _GuideRequest(msgspec.Struct):
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    request_start_time: float | None = None
    start_time: float | None = None


class _GuideRequests(msgspec.Struct):
    successful: list[_GuideRequest] = []
    errored: list[_GuideRequest] = []


class _GuideBenchmark(msgspec.Struct):
    requests: _GuideRequests


class _GuideReport(msgspec.Struct):
    benchmarks: list[_GuideBenchmark]


def read_vllm_bench(path: Path, report: ReadReport) -> Iterator[Numbered]:
    """Yield the requests of a vLLM or SGLang serving benchmark; numbers count requests.

    Without ``start_times`` the file holds lengths only and needs an arrival process.

    Raises:
        TraceError: not such a file, or its arrays disagree in length.
    """
    bench = _decode(path, _VllmBench, "a vLLM bench result written with --save-detailed")
    count = len(bench.input_lens)
    starts = bench.start_times
    report.timed = starts is not None
    for name, column in (("output_lens", bench.output_lens), ("start_times", starts)):
        if column is not None and len(column) != count:
            raise TraceError(
                f"{name} has {len(column)} entries, input_lens {count}", path=str(path)
            )
    errors = bench.errors or []
    for i in range(count):
        failed = i < len(errors) and bool(errors[i])
        output = 0 if failed else bench.output_lens[i]
        yield i + 1, TraceRecord(starts[i] if starts else 0.0, bench.input_lens[i], output)


def read_guidellm(path: Path, report: ReadReport) -> Iterator[Numbered]:
    """Yield the requests of all benchmarks in a GuideLLM report; numbers count requests.

    Raises:
        TraceError: not such a file.
    """
    document = _decode(path, _GuideReport, "a GuideLLM report (benchmarks.json)")
    number = 0
    for benchmark in document.benchmarks:
        report.unanswered += len(benchmark.requests.errored)
        for request in benchmark.requests.successful:
            number += 1
            started = request.request_start_time or request.start_time
            if started is None or request.prompt_tokens is None or request.output_tokens is None:
                report.bad(number, "a start time or a token count is missing")
                continue
            yield number, TraceRecord(started, request.prompt_tokens, request.output_tokens)


def _decode(path: Path, kind: type[_T], what: str) -> _T:
    try:
        return msgspec.json.decode(read_all(path), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TraceError(f"is not {what}: {error}", path=str(path)) from None
