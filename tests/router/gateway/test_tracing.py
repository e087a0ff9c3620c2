"""Traces: one span a request, joined to the caller's and continued by the engine."""

from __future__ import annotations

import asyncio
import json
import logging
from hashlib import sha256

import pytest

from router.config.load import load_config
from router.domain.errors import ConfigError
from router.gateway.app import build_app
from telemetry import tracing
from tests.router.gateway.conftest import StartEngine
from tests.router.gateway.fakes import (
    MODEL,
    REQUEST,
    answer,
    chat,
    eventually,
    fleet,
    running,
    stream,
)
from tests.telemetry.otlp import collecting

pytest.importorskip("opentelemetry.sdk")
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLER = f"00-{TRACE}-{PARENT}-01"


async def test_a_span_joins_the_callers_trace_and_tells_the_decision(engine: StartEngine) -> None:
    backend = await engine(stream(["a", "b"], usage={"prompt_tokens": 7, "completion_tokens": 2}))
    with collecting() as collector:
        async with running(fleet(backend, telemetry=traced(collector.url))) as gate:
            await gate.post(traceparent=CALLER, x_request_id="r-1")
        (span,) = collector.spans
    assert (span["name"], span["trace"], span["parent"]) == (
        "POST /v1/chat/completions",
        TRACE,
        PARENT,
    )
    assert collector.services == {"motley"}
    assert span["kind"] == 2, "a server's"
    passed = backend.received[0].headers["traceparent"]
    assert passed == f"00-{TRACE}-{span['span']}-01", "the engine's span hangs below ours"
    told = span["attributes"]
    assert told["motley.backend"] == "e0"
    assert told["motley.policy"] == "round-robin"
    assert told["motley.request_id"] == "r-1"
    assert told["gen_ai.request.model"] == MODEL
    assert told["gen_ai.usage.input_tokens"] == "7"
    assert told["motley.ttft_s"] > 0
    assert told["motley.predicted_ttft_s"] > 0
    assert span["events"] == ["dispatched", "first token"]
    assert not span["failed"]
    assert 0 < span["seconds"] < 10


async def test_a_request_without_a_trace_begins_one(engine: StartEngine) -> None:
    backend = await engine(chat())
    with collecting() as collector:
        async with running(fleet(backend, telemetry=traced(collector.url))) as gate:
            await gate.post()
        (span,) = collector.spans
    assert span["parent"] == ""
    assert backend.received[0].headers["traceparent"].split("-")[1] == span["trace"]


async def test_failures_and_rejections_have_spans_too(engine: StartEngine) -> None:
    backend = await engine(answer(500, b"{}"))
    unknown = b'{"model": "nope", "messages": [{"role": "user", "content": "SECRET"}]}'
    with collecting() as collector:
        async with running(fleet(backend, telemetry=traced(collector.url))) as gate:
            await gate.post()
            await gate.post(body=unknown)
            await gate.post(body=b"{")
        failed, rejected, odd = collector.spans
    assert failed["failed"] == "HTTP 500"
    assert failed["attributes"]["motley.outcome"] == "failed"
    assert rejected["failed"] == "unknown_model"
    assert rejected["attributes"]["http.response.status_code"] == "404"
    assert odd["attributes"]["http.response.status_code"] == "400"
    assert b"SECRET" not in b"".join(collector.bodies), "content is never told"


async def test_a_caller_that_does_not_sample_is_obeyed(engine: StartEngine) -> None:
    backend = await engine(chat())
    with collecting() as collector:
        async with running(fleet(backend, telemetry=traced(collector.url))) as gate:
            await gate.post(traceparent=f"00-{TRACE}-{PARENT}-00")
        assert collector.spans == []
    assert backend.received[0].headers["traceparent"].endswith("-00")


async def test_a_collector_that_is_away_costs_no_request(
    engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "EXPORT_TIMEOUT_S", 0.2)
    backend = await engine(chat())
    async with running(fleet(backend, telemetry=traced("http://127.0.0.1:9"))) as gate:
        assert (await gate.post()).status_code == 200


async def test_spans_are_whole_whatever_becomes_of_their_requests(engine: StartEngine) -> None:
    """Many at once, streamed or not, some left by their clients: one span each, below the right
    parent, and nothing in them that is the client's own."""
    usage = {"prompt_tokens": 7, "completion_tokens": 2}
    backend = await engine(stream(["SECRET"] * 3, usage=usage, gap_s=0.01))
    key = {"name": "team", "hash": "sha256:" + sha256(b"sk-SECRET").hexdigest()}
    body = REQUEST.replace(b"Say hello.", b"SECRET")
    with collecting() as collector:
        config = fleet(backend, telemetry=traced(collector.url), access={"keys": [key]})
        async with running(config) as gate, gate.client(authorization="Bearer sk-SECRET") as client:

            async def ask(number: int) -> None:
                context = {"traceparent": f"00-{number:032x}-{number:016x}-01"}
                path = "/v1/chat/completions?key=SECRET"
                async with client.stream("POST", path, content=body, headers=context) as answered:
                    assert answered.status_code == 200
                    if number % 5:
                        await answered.aread()

            await asyncio.gather(*(ask(number) for number in range(1, 51)))
            await eventually(lambda: gate.relay.engine.live == 0)
            long = json.dumps({"model": "long" * 10_000}).encode()
            assert (await client.post("/v1/chat/completions", content=long)).status_code == 404
    spans = {span["parent"]: span for span in collector.spans}
    assert len(collector.spans) == len(spans) == 51
    for number in range(1, 51):
        span = spans[f"{number:016x}"]
        assert span["trace"] == f"{number:032x}"
        assert span["attributes"]["motley.outcome"] in ("completed", "cancelled")
    assert spans[""]["attributes"]["gen_ai.request.model"] == "long" * 64
    assert b"SECRET" not in b"".join(collector.bodies)


def test_a_collector_that_is_away_is_told_of_once_a_minute() -> None:
    from opentelemetry.exporter.otlp.proto.http import trace_exporter

    for _ in range(2):
        tracing.make_tracing("http://127.0.0.1:9", 1.0).close()
    logger = logging.getLogger(trace_exporter.__name__)
    (filter_,) = [one for one in logger.filters if isinstance(one, tracing.NowAndThen)]
    records = [logger.makeRecord("x", logging.ERROR, "", 0, "away", (), None) for _ in range(4)]
    for record, at_s in zip(records, (1e9, 1e9 + 5, 1e9 + 59, 1e9 + 60), strict=True):
        record.created = at_s
    filter_._next_s = 0.0
    assert [filter_.filter(record) for record in records] == [True, False, False, True]
    filter_._next_s = 0.0


async def test_a_collector_that_hangs_holds_up_neither_requests_nor_the_end(
    engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "EXPORT_TIMEOUT_S", 1.0)
    backend = await engine(chat())
    silent = await asyncio.start_server(lambda *_: asyncio.sleep(3600), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    async with running(fleet(backend, telemetry=traced(f"http://127.0.0.1:{port}"))) as gate:
        async with gate.client() as client:
            for _ in range(600):  # more than a batch
                answered = await client.post("/v1/chat/completions", content=REQUEST)
                assert answered.status_code == 200
        began_s = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began_s < 2.5, "one patience, not one a batch"
    silent.close()


async def test_without_traces_the_context_passes_untouched(engine: StartEngine) -> None:
    backend = await engine(chat())
    async with running(fleet(backend)) as gate:
        await gate.post(traceparent=CALLER, tracestate="a=b")
    assert backend.received[0].headers["traceparent"] == CALLER
    assert backend.received[0].headers["tracestate"] == "a=b"


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    config = load_config(fleet("http://127.0.0.1:9", telemetry=traced("http://127.0.0.1:9")))
    with pytest.raises(ConfigError, match=r"pip install 'motley-router\[otel\]'"):
        build_app(config)


def traced(url: str) -> dict[str, object]:
    return {"enabled": False, "otlp_endpoint": url}
