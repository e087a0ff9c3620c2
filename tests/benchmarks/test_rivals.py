"""The comparison through the gateways' own binaries is a fair one."""

from __future__ import annotations

import asyncio
import json

import pytest

from benchmarks.gateway import bench_rivals as rivals
from benchmarks.gateway import replaying
from simulator.engine_server.tokens import BYTES_PER_TOKEN
from simulator.traces.columns import Trace
from simulator.traces.record import TraceRecord


@pytest.fixture
def trace() -> Trace:
    record = TraceRecord(arrival_s=0.0, input_tokens=400, output_tokens=30, max_tokens=512)
    return Trace("made up").extend([record, record])


def test_a_request_is_as_long_as_the_trace_says_and_unlike_any_other(trace: Trace):
    one, other = (json.loads(replaying.body_of(trace, i)) for i in range(2))
    prompt = one["messages"][0]["content"]
    assert len(prompt) == 400 * BYTES_PER_TOKEN
    assert prompt[:16] != other["messages"][0]["content"][:16]


def test_the_limit_is_told_and_the_length_stands_where_no_gateway_reads_it(trace: Trace):
    body = json.loads(replaying.body_of(trace, 0))
    assert (body["max_tokens"], body["min_tokens"]) == (512, 30)
    assert 30 not in [value for name, value in body.items() if name != "min_tokens"]


def test_motley_is_told_nothing_that_the_others_are_not():
    told = json.loads(rivals.fleet_file("motley", [1, 2, 3, 4]))
    assert "overrides" not in told
    assert told["policy"] == {"name": "motley"}


def test_the_true_weights_of_nginx_know_how_fast_each_engine_really_is(trace: Trace):
    weights = rivals.true_weights(trace)
    assert weights[0] > weights[1] > weights[2] > weights[3] == 10
    assert weights[2] / weights[3] == pytest.approx(1.25 / 0.8, rel=0.05)


@pytest.mark.parametrize(
    ("said", "came"),
    [
        (b'{"content":"w0"}\n\ndata: [DONE]\n\n', True),
        (b'{"content":"w0"}\n\n', False),
        (b"HTTP/1.1 503 busy\r\n\r\n", False),
    ],
)
async def test_only_whole_answers_count(said: bytes, came: bool):
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(said)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        took = await replaying.ask(server.sockets[0].getsockname()[1], b"{}")
    assert (took.ttft_s is not None, took.e2e_s is not None) == (came, came)


async def test_a_gateway_that_is_not_there_answered_nothing():
    assert await replaying.ask(rivals.free_port(), b"{}") == replaying.Took(None, None)
