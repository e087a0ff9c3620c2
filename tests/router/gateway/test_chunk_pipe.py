"""Whole chunks pass as they came; however odd a stream is, the client gets every byte once."""

from __future__ import annotations

import asyncio
import json
import random
from itertools import pairwise
from pathlib import Path

import pytest

from router.gateway import chunk_pipe
from router.gateway.chunk_pipe import ChunkPipe, between_chunks, ending_of
from tests.fakes.certificates import Authority
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import (
    DONE,
    REQUEST,
    Behaviour,
    FakeEngine,
    Gateway,
    Received,
    chunk,
    event,
)
from tests.router.gateway.test_metrics import samples

STREAMED = REQUEST.replace(b'"max_tokens"', b'"stream": true, "max_tokens"')


def token(content: str, finish: str | None = None, **more: object) -> bytes:
    """One event as vLLM writes it."""
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish, "token_ids": None}
    document = {"id": "chatcmpl-1", "choices": [choice], **more}
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


def usage(tokens: int) -> bytes:
    document = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": tokens}}
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def reads(*pieces: bytes, gap_s: float = 0.003) -> Behaviour:
    """A stream whose bytes come in these reads, whatever its chunks are."""

    async def behave(request: Received) -> bool:
        await request.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        for piece in pieces:
            await request.send(piece)
            await asyncio.sleep(gap_s)
        return True

    return behave


class Counting(ChunkPipe):
    """Counts what goes the short way."""

    passed: int = 0

    def data_received(self, data: bytes) -> None:
        before = self.chunks
        super().data_received(data)
        Counting.passed += self.chunks > before


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> type[Counting]:
    monkeypatch.setattr("router.gateway.relaying.ChunkPipe", Counting)
    Counting.passed = 0
    return Counting


async def test_tokens_go_the_short_way_and_are_counted(
    engine: StartEngine, gateway: StartGateway, passed: type[Counting], front_end: str
) -> None:
    events = [
        token("a"),
        *(token(str(n)) for n in range(20)),
        token("z", "length"),
        usage(22),
        DONE,
    ]
    backend = await engine(reads(*map(chunk, events), b"0\r\n\r\n"))
    gate = await gateway(backend)
    for _ in range(2):  # the connection is as good as new afterwards
        answered = await gate.post(body=STREAMED)
        assert answered.content == b"".join(events)
    assert backend.connections == 1
    assert gate.books["completed"] == 2
    # The server behind ASGI frames for itself.
    assert passed.passed == (40 if front_end == "protocol" else 0)
    seen = await samples(gate)
    [ended] = [v for k, v in seen.items() if k[0] == "motley_finish_reasons_total"]
    assert ended == 2
    [gaps] = [v for k, v in seen.items() if k[0] == "motley_inter_token_latency_seconds_count"]
    assert gaps >= 40


async def test_the_first_event_may_end_otherwise(
    engine: StartEngine, gateway: StartGateway, passed: type[Counting], front_end: str
) -> None:
    """vLLM's tells of the prompt."""
    events = [token("", prompt_token_ids=None), *(token(str(n)) for n in range(9)), DONE]
    gate = await gateway(await engine(reads(*map(chunk, events), b"0\r\n\r\n")))
    assert (await gate.post(body=STREAMED)).content == b"".join(events)
    assert passed.passed == (8 if front_end == "protocol" else 0)


@pytest.mark.parametrize("more", [{"usage": {"completion_tokens": 7}}, {"note": "#"}])
async def test_a_stream_whose_events_end_differently_goes_the_long_way(
    engine: StartEngine, gateway: StartGateway, passed: type[Counting], more: dict[str, object]
) -> None:
    said = [
        json.dumps(more).replace("7", str(n)).replace("#", "abcdefghijkl"[n]) for n in range(12)
    ]
    events = [*(token("a", **json.loads(one)) for one in said), DONE]
    gate = await gateway(await engine(reads(*map(chunk, events), b"0\r\n\r\n")))
    assert (await gate.post(body=STREAMED)).content == b"".join(events)
    assert passed.passed == 0


async def test_without_usage_what_passed_is_what_is_counted(
    engine: StartEngine, gateway: StartGateway
) -> None:
    events = [token(str(n)) for n in range(12)]
    gate = await gateway(await engine(reads(*map(chunk, [*events, DONE]), b"0\r\n\r\n")))
    await gate.post(body=STREAMED)
    seen = await samples(gate)
    [tokens] = [v for k, v in seen.items() if k[0] == "motley_output_tokens_total"]
    assert tokens == 11  # of twelve events and [DONE], less role and [DONE]


@pytest.mark.parametrize("seed", range(4))
async def test_however_the_bytes_are_cut_every_one_arrives_once(
    engine: StartEngine, gateway: StartGateway, seed: int
) -> None:
    """Chunks cut anywhere, joined, with two events in one, comments, and look-alikes inside."""
    rng = random.Random(seed)
    events = [token("a")]
    for n in range(60):
        events.append(
            rng.choice(
                (
                    token(str(n)),
                    token(str(n)),
                    token("x" * rng.randrange(300)),
                    token("one") + token("two"),
                    b": ping\n\n",
                    token(chunk(token("inner")).decode()),
                )
            )
        )
    events += [usage(3), DONE]
    body = b"".join(events)
    wire = b"".join(map(chunk, events)) + b"0\r\n\r\n"
    ends = {0, len(wire)}
    at = 0
    for one in events:  # most reads are whole chunks
        at += len(chunk(one))
        if rng.random() < 0.8:
            ends.add(at)
    ends |= {rng.randrange(len(wire)) for _ in range(15)}
    pieces = [wire[a:b] for a, b in pairwise(sorted(ends))]
    gate = await gateway(await engine(reads(*pieces, gap_s=0.001)))
    answered = await gate.post(body=STREAMED)
    assert answered.content == body
    assert gate.books["completed"] == 1


async def test_a_chunk_inside_of_another_one_is_text(
    engine: StartEngine, gateway: StartGateway, passed: type[Counting]
) -> None:
    """A read that looks like a whole chunk, while the stream is in the middle of a larger one."""
    inner = chunk(token("inner"))
    outer = b"data: " + inner + b"\n\n"
    whole = chunk(outer)
    cut = whole.index(inner)
    pieces = [chunk(token("a")), chunk(token("b")), whole[:cut], inner, whole[cut + len(inner) :]]
    gate = await gateway(await engine(reads(*pieces, chunk(DONE), b"0\r\n\r\n", gap_s=0.01)))
    answered = await gate.post(body=STREAMED)
    assert answered.content == token("a") + token("b") + outer + DONE
    assert passed.passed <= 1


async def test_an_engine_that_dies_between_two_chunks_is_told_of(
    engine: StartEngine, gateway: StartGateway
) -> None:
    async def dies(request: Received) -> bool:
        await reads(*(chunk(token(str(n))) for n in range(5)))(request)
        return False

    gate = await gateway(await engine(dies))
    text = await asyncio.wait_for(_all_of(gate), 5.0)  # at once: it is not taken for silence
    assert text.count(b'"finish_reason":null') == 5
    assert b"backend_broken" in text
    assert b"closed the connection" in text
    assert not text.endswith(b"0\r\n\r\n")
    assert gate.books["failed"] == 1


async def test_silence_after_the_short_way_is_late_as_ever(
    engine: StartEngine, gateway: StartGateway
) -> None:
    async def stalls(request: Received) -> bool:
        await reads(*(chunk(token(str(n))) for n in range(5)))(request)
        await request.wait_for_leaving()
        return False

    gate = await gateway(await engine(stalls), reliability={"idle_timeout_s": 0.3})
    text = await asyncio.wait_for(_all_of(gate), 5.0)
    assert b"fell silent in mid-answer" in text


async def test_a_client_that_leaves_frees_the_engine(
    engine: StartEngine, gateway: StartGateway
) -> None:
    left = asyncio.Event()

    async def endless(request: Received) -> bool:
        try:
            await reads(*(chunk(token(str(n))) for n in range(5000)))(request)
        finally:
            left.set()
        return False

    gate = await gateway(await engine(endless))
    reader, writer = await gate.connect()
    writer.write(_head() + STREAMED)
    await reader.readuntil(b'"9"')
    writer.close()
    await asyncio.wait_for(left.wait(), 2.0)
    assert gate.books["cancelled"] == 1


async def test_over_tls_too(
    engine: StartEngine,
    gateway: StartGateway,
    passed: type[Counting],
    front_end: str,
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path)
    events = [*(event({"content": str(n)}) for n in range(9)), DONE]  # JSON with spaces
    fake = FakeEngine(reads(*map(chunk, events), b"0\r\n\r\n"))
    fake.tls = authority.server_context("engine")
    await fake.start()
    try:
        gate = await gateway(fake, upstream={"tls": {"ca_file": str(authority.ca_file)}})
        for _ in range(2):
            assert (await gate.post(body=STREAMED)).content == b"".join(events)
        assert fake.connections == 1
    finally:
        await fake.stop()
    assert passed.passed == (16 if front_end == "protocol" else 0)


def test_a_read_ends_between_two_chunks_only_with_a_frame() -> None:
    body = token("a")
    assert between_chunks(chunk(body), body)
    assert not between_chunks(chunk(body)[:-1], body)
    assert not between_chunks(chunk(body)[:-2], body)
    assert not between_chunks(b"data: \n\n\r\n", b"data: \n\n\r\n")  # all of it is body


def test_how_reads_end_is_told_by_what_says_that_nothing_ended() -> None:
    assert ending_of(token("a")) == b'"finish_reason":null,"token_ids":null}]}\n\n\r\n'
    for other in (token("a", "stop"), usage(3), DONE, b'data: {"finish_reason":null}\n'):
        assert ending_of(other) == b""


class Way(asyncio.Protocol):
    """The long way: notes what comes."""

    def __init__(self) -> None:
        self.read: list[bytes] = []
        self.lost: list[Exception | None] = []

    def data_received(self, data: bytes) -> None:
        self.read.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


def test_one_event_that_ends_like_the_last_goes_the_short_way_and_nothing_else_does() -> None:
    way, sent, gaps, now = Way(), list[bytes](), list[float](), [10.0]
    pipe = ChunkPipe(way, sent.append, gaps.append, lambda: now[0], 9.5)
    plain = chunk(token("a"))
    pipe.data_received(plain)
    assert (way.read, sent) == ([plain], []), "nothing was expected yet"

    pipe.expect(ending_of(token("b")))
    pipe.data_received(plain)
    now[0] = 10.25
    pipe.data_received(plain)
    assert (sent, pipe.chunks, pipe.since_s) == ([plain, plain], 2, 10.25)
    assert gaps == [0.5, 0.25]

    odd = [
        chunk(token("one") + token("two")),
        chunk(token("z", "stop")),
        chunk(b": ping\n\n" + token("a")),
        plain[:-3],
        plain + plain[:20],
        chunk(token("x" * 4_096)),
    ]
    for read in odd:
        pipe.data_received(read)
    assert way.read[1:] == odd
    assert pipe.chunks == 2
    broken = ConnectionResetError()
    pipe.connection_lost(broken)
    assert way.lost == [broken]


def test_every_length_has_its_beginning() -> None:
    told = chunk_pipe.beginnings()
    for size in (6, 15, 16, 220, 255, 256, 4000):
        whole = chunk(b"data: " + b"x" * (size - 6))
        assert whole.startswith(told[len(whole)])
        assert len(told[len(whole)]) == 6


def _head() -> bytes:
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-type: application/json\r\n"
        b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(STREAMED)
    )


async def _all_of(gate: Gateway) -> bytes:
    reader, writer = await gate.connect()
    writer.write(_head() + STREAMED)
    text = await reader.read()
    writer.close()
    return text
