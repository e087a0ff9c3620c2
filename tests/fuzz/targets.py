"""One function a parser: it takes any bytes and fails only where a promise is broken."""

from __future__ import annotations

import io
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.config.load import load_config
from router.domain.errors import MotleyError
from router.domain.request import Request
from router.domain.state import LinearCost
from router.gateway.batch import lines, output
from router.gateway.connection import Connection
from router.gateway.multipart import fields_of, form_of, renamed
from router.gateway.problems import ProblemError, from_engine, in_band
from router.gateway.prompt_size import PromptSizer
from router.gateway.receiver import UpstreamFailure
from router.gateway.rewriting import with_model, with_priority_turned
from router.gateway.tally import Tally, first_event
from router.gateway.wire import (
    Headers,
    has_images,
    prompt_bytes,
    token_limit,
)
from router.perf.length import BucketLengthPredictor
from router.perf.length_kept import LengthCell
from router.policies.tail_scale import TailScale
from simulator.traces.read import stream_trace
from telemetry.calibration import Calibration
from telemetry.drift import Level
from telemetry.engine_metrics import read
from telemetry.exposition import Problems
from telemetry.feedback import Feedback
from telemetry.learned import Learned, decode, encode
from telemetry.log_filter import FilterState
from telemetry.orca import parse_orca
from telemetry.speeds import Speed

HERE = Path(__file__).parent
FORM = b"multipart/form-data; boundary=xx"


@dataclass(frozen=True, slots=True)
class Target:
    """What is fuzzed.

    Attributes:
        run: given any bytes; raises if a promise is broken.
        seeds: sensible inputs to begin with.
    """

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


def body(data: bytes) -> None:
    """A request's JSON: refused in the one shape, or routed and changed in nothing but the name."""
    try:
        fields = fields_of(data, b"application/json")
    except ProblemError as error:
        _is_a_refusal(error)
        return
    limit = token_limit(fields)
    assert limit is None or limit > 0
    assert prompt_bytes(data) >= 0
    assert prompt_bytes(data) == len(data) or has_images(data)
    fields.prompt_text()
    before = _decoded(data)
    if isinstance(before, dict) and isinstance(before.get("model"), str):
        after = _decoded(with_model(data, "another"))
        assert after == before | {"model": "another"}, "only the model's name may change"
    turned = _decoded(with_priority_turned(data))
    if isinstance(before, dict) and isinstance(turned, dict):
        assert {k: v for k, v in turned.items() if k != "priority"} == {
            k: v for k, v in before.items() if k != "priority"
        }


def _is_a_refusal(error: ProblemError) -> None:
    assert 400 <= error.problem.status < 500
    json.loads(error.problem.body())


def _says_something(complaint: MotleyError) -> None:
    assert str(complaint)


def _decoded(data: bytes) -> Any:
    """As Python reads it; ``None`` where it is stricter or more lenient than msgspec."""
    try:
        return json.loads(data, parse_constant=lambda _: math.inf)
    except (ValueError, RecursionError):
        return None


def form(data: bytes) -> None:
    """An upload."""
    try:
        fields = fields_of(data, FORM)
        whole = form_of(data, FORM)
    except ProblemError as error:
        _is_a_refusal(error)
        return
    assert fields.model is not None
    assert "model" in whole
    assert form_of(renamed(data, "another", FORM), FORM)["model"][1] == b"another"


def stream(data: bytes) -> None:
    """An event stream, in any pieces: the first byte says how it is cut."""
    size = data[0] % 64 + 1 if data else 1
    tally = Tally(events=True)
    for at in range(1, len(data), size):
        tally.see(data[at : at + size])
    tally.at_event_boundary()
    end = tally.end()
    assert tally.output_tokens(None) >= 0
    if end.usage is not None:
        tally.output_tokens(end.usage)
    event = first_event(data[1:], at_end=True)
    assert event in data
    problem = in_band(event, "b") if event else None
    assert problem is None or 400 <= problem.status <= 599


def error(data: bytes) -> None:
    """An engine's error answer becomes one of ours, valid JSON in the one shape."""
    problem = from_engine(400 + (data[0] if data else 0) % 200, data[1:], "b")
    told = json.loads(problem.body())["error"]
    assert set(told) == {"message", "type", "param", "code"}
    assert isinstance(told["message"], str)
    dict(problem.headers())


class _Socket:
    """A transport that goes nowhere."""

    def __init__(self) -> None:
        self.closed = False

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    close = abort

    def writelines(self, parts: object) -> None:
        """Nobody reads it."""

    def pause_reading(self) -> None:
        """Nothing comes by itself."""

    resume_reading = pause_reading


class _Receiver:
    """Insists on the order of calls that ``connection.Receiver`` promises."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_sent(self) -> None:
        self.calls.append("sent")

    def on_head(self, status: int, headers: Headers) -> None:
        assert 100 <= status <= 999
        assert "head" not in self.calls
        assert not self.over
        self.calls.append("head")

    def on_data(self, data: bytes) -> None:
        assert data
        assert "head" in self.calls
        assert not self.over

    def on_end(self) -> None:
        assert not self.over
        self.calls.append("end")

    def on_failed(self, failure: UpstreamFailure) -> None:
        assert not self.over
        self.calls.append("failed")

    @property
    def over(self) -> bool:
        return bool({"end", "failed"} & set(self.calls))


class _Home:
    async def dial(self, connection: Connection) -> None:
        """Never called."""

    def release(self, connection: Connection) -> None:
        """It may carry more."""

    def forget(self, connection: Connection) -> None:
        """It is gone."""


def answer(data: bytes) -> None:
    """An engine's HTTP answer, in any pieces, then the connection's end: one outcome, once."""
    size = data[0] + 1 if data else 1
    connection, receiver = Connection(_Home()), _Receiver()
    connection.connection_made(_Socket())  # type: ignore[arg-type]
    connection.send_ahead([b"POST / HTTP/1.1\r\n\r\n"])
    connection.attach(receiver)
    for at in range(1, len(data), size):
        connection.data_received(data[at : at + size])
    connection.connection_lost(None)
    assert receiver.over


def exposition(data: bytes) -> None:
    """A metrics page: read as far as it makes sense, never an exception, never an absurd figure."""
    signals = read(data, "vllm", 0.0, Problems()).signals
    for count in (signals.running, signals.waiting, signals.preemptions):
        assert count is None or count >= 0
    for ratio in (signals.kv_usage, signals.prefix_hit_ratio):
        assert ratio is None or 0.0 <= ratio <= 1.0


def load_header(data: bytes) -> None:
    """vLLM's load report beside an answer."""
    signals = parse_orca(data.decode("latin-1"), 0.0)
    if signals is not None:
        assert signals.running is None or signals.running >= 0
        assert signals.kv_usage is None or 0.0 <= signals.kv_usage <= 1.0


def config(data: bytes) -> None:
    """A configuration: understood, or refused with a line that names it."""
    with _file(data, ".yaml") as path:
        try:
            load_config(path)
        except MotleyError as complaint:
            _says_something(complaint)


def trace(data: bytes) -> None:
    """A trace in any format: records with possible numbers, or a complaint that names the place."""
    suffix = (".csv", ".jsonl", ".json")[data[0] % 3] if data else ".csv"
    with _file(data[1:], suffix) as path:
        try:
            records, _ = stream_trace(path)
            for record in records:
                assert math.isfinite(record.arrival_s)
                assert record.input_tokens >= 0
                assert record.output_tokens >= 0
        except MotleyError as complaint:
            _says_something(complaint)


def batch(data: bytes) -> None:
    """A batch file: requests, or what is wrong with which line; and an output that a crash cut."""
    tasks, faults = lines.read(data, "/v1/chat/completions", lambda model: model == "m")
    for fault in faults:
        json.dumps(fault.told())
    ids = [task.custom_id for task in tasks]
    assert len(ids) == len(set(ids)) or faults
    output.read(io.BytesIO(data))


def learned(data: bytes) -> None:
    """A file of what was learned: used by those who learn, or refused with a line that says why."""
    try:
        known, flaws = decode(data)
    except MotleyError as complaint:
        _says_something(complaint)
        return
    assert all(flaws)
    predictor, prompts, scale = BucketLengthPredictor(), PromptSizer(), TailScale()
    feedback = Feedback({"e0": _COST}, cards={"e0": "c"}, calibration=Calibration())
    predictor.restore(known.lengths, keep=0.5)
    prompts.restore(known.prompts)
    scale.recall(known.policies.get("motley", {}))
    feedback.restore(known.speeds, 60.0, 0.0)
    told = predictor.forecast(Request("r", "m", 0.0, 1000))
    assert 0.0 < told.mean_tokens <= told.p90_tokens < math.inf
    assert all(0.0 < x < math.inf for pair in feedback.corrections().values() for x in pair)
    assert prompts.estimate("m", 1000) >= 1
    assert 0.0 < scale.worth < math.inf
    kept = Learned("gateway", 1.0, predictor.cells(), feedback.speeds(0.0))
    assert not decode(encode(kept))[1], "what is kept on is as good as what was read"


_COST = LinearCost(step_s=0.01, prefill_s=8e-5, seq_s=2e-5, context_s=7.6e-8, pair_s=6e-9)


class _file:  # noqa: N801 - used as a function
    """A file of this content, for as long as the block."""

    def __init__(self, data: bytes, suffix: str) -> None:
        folder = "/dev/shm" if Path("/dev/shm").is_dir() else None
        handle, self._name = tempfile.mkstemp(suffix, dir=folder)
        os.write(handle, data)
        os.close(handle)

    def __enter__(self) -> Path:
        return Path(self._name)

    def __exit__(self, *_: object) -> None:
        os.unlink(self._name)


CHAT = json.dumps(
    {
        "model": "m",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "max_tokens": 5,
        "stream": True,
        "priority": -3,
        "metadata": {"slo_class": "bulk", "model": "no"},
    }
).encode()
UPLOAD = (
    b'--xx\r\ncontent-disposition: form-data; name="model"\r\n\r\nm\r\n--xx\r\n'
    b'content-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n\x00\x01\r\n--xx--\r\n'
)
EVENTS = (
    b'\x07: keep-alive\n\ndata: {"choices":[{"delta":{"content":"a"},"finish_reason":null}]}\n\n'
    b'data: {"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\ndata: [DONE]\n\n'
)
REFUSAL = b'\x03data: {"error":{"message":"full","code":503,"type":"503","param":null}}\n\n'
HTTP = (
    b"\x10HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n0\r\n\r\n"
)
HTTP_PLAIN = b"\xffHTTP/1.1 503 X\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n\r\n"
PAGE = (
    b'vllm:num_requests_running{engine="0",model_name="m"} 3.0\n'
    b'vllm:num_requests_waiting{engine="0",model_name="m"} 1\n'
    b'vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.5\n# HELP x y\n'
)
YAML = (
    b"backends:\n  - {gpu: a100-80, model: llama-3.1-8b, url: http://h:1}\npolicy: {name: motley}\n"
)
CSV = b"\x00TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,374,44\n"
JSONL = b'\x01{"timestamp": 0, "input_length": 10, "output_length": 5, "hash_ids": [1, 2]}\n'
BATCH = b'{"custom_id":"1","method":"POST","url":"/v1/chat/completions","body":{"model":"m"}}\n'
FILTER = FilterState(
    [0.1, -0.2, 0.3], [[0.1, 0, 0], [0, 0.1, 0.01], [0, 0.01, 0.1]], {"prefill": 0.2}
)
LEARNED = encode(
    Learned(
        "gateway",
        1.7e9,
        [
            LengthCell(("m", "", 20, -1), 12.0, 200.5, 400.0, 7e4),
            LengthCell(("m",), 3.0, 9.0, 8.0, 99.0),
        ],
        [Speed("e0", "g", "c", _COST, 3.0, 40, FILTER, None, {"decode": Level(0.3, 0.1, 0.2)})],
        {"m": (8800.0, 2000.0)},
        {"motley": {"counted_e2e_s": 9.0, "e2e_moment": 0.2}},
    )
)
TARGETS = {
    "body": Target(body, (CHAT, b'{"model":"m","model":"n"}', b'{"model":"m","prompt":[1,2]}')),
    "form": Target(form, (UPLOAD,)),
    "stream": Target(stream, (EVENTS, REFUSAL)),
    "error": Target(error, (REFUSAL, b'\x00{"detail":"no"}', b"\x64plain")),
    "answer": Target(answer, (HTTP, HTTP_PLAIN)),
    "exposition": Target(exposition, (PAGE,)),
    "load-header": Target(load_header, (b"TEXT named_metrics.kv_cache_usage_perc=0.5", b"JSON {}")),
    "config": Target(config, (YAML,)),
    "trace": Target(trace, (CSV, JSONL)),
    "batch": Target(batch, (BATCH,)),
    "learned": Target(learned, (LEARNED,)),
}


def seeds(name: str) -> Iterator[bytes]:
    """Inputs to begin with."""
    yield b""
    yield from TARGETS[name].seeds
