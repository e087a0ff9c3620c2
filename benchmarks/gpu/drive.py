"""A load of known requests over HTTP, open loop and closed: cheap enough not to be measured.

A connection a request, parsed in C. ``max_tokens`` is the same for all, as a client's limit is; how
long an answer really gets is told the engine in ``seed`` (``benchmarks.gpu.serve``).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools

from simulator.bench.answer import AnswerReader, Sample

MAX_TOKENS = 512
TEMPLATE_BYTES = 29
"""What the chat template adds to a message of one line."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of a load; ``at_s`` from its start."""

    at_s: float
    prompt_tokens: int
    output_tokens: int


class _Answer(asyncio.Protocol):
    """Reads one answer; the names without a leading underscore are httptools's."""

    def __init__(self, sample: Sample, payload: bytes) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sample, self._payload = sample, payload
        self._reader = AnswerReader(sample)
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._payload)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._end()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-motley-backend":
            self._sample.backend = value.decode()

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status != 200:
            self._sample.error = f"HTTP {status}"

    def on_body(self, body: bytes) -> None:
        self._reader.feed(body, time.monotonic())

    def on_message_complete(self) -> None:
        self._end()

    def _end(self) -> None:
        if not self.done.done():
            self._reader.finish()
            self.done.set_result(None)


async def open_loop(
    url: str, model: str, load: Sequence[Asked], *, give_up_s: float, seed: int = 0
) -> list[Sample]:
    """Send each when it is due; leave what is not answered ``give_up_s`` after the last.

    A request that was left has ``error`` "unfinished".
    """
    rng = random.Random(seed)
    bodies = [_payload(url, model, asked, rng) for asked in load]
    begin_s = time.monotonic()
    samples: list[Sample] = []
    tasks = []
    for asked, body in zip(load, bodies, strict=True):
        due_s = begin_s + asked.at_s
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        samples.append(Sample(due_s, time.monotonic()))
        tasks.append(asyncio.create_task(_ask(url, body, samples[-1])))
    _, left = await asyncio.wait(tasks, timeout=give_up_s)
    for task in left:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return samples


async def closed_loop(
    url: str, model: str, load: Sequence[Asked], *, users: int, seconds: float, seed: int = 0
) -> None:
    """Keep so many requests in the server for so long; of interest is what the server logs."""
    rng = random.Random(seed)
    todo = itertools.cycle(load)

    async def user() -> None:
        while True:
            now_s = time.monotonic()
            await _ask(url, _payload(url, model, next(todo), rng), Sample(now_s, now_s))

    tasks = [asyncio.create_task(user()) for _ in range(users)]
    try:
        await asyncio.sleep(seconds)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _ask(url: str, payload: bytes, sample: Sample) -> None:
    parts = urlsplit(url)
    answer = _Answer(sample, payload)
    try:
        transport, _ = await asyncio.get_running_loop().create_connection(
            lambda: answer, parts.hostname, parts.port
        )
    except OSError as error:
        sample.error = f"connection: {error}"
        return
    try:
        await answer.done
    except asyncio.CancelledError:
        sample.error = "unfinished"
        raise
    finally:
        transport.close()


def _payload(url: str, model: str, asked: Asked, rng: random.Random) -> bytes:
    """A streamed chat with a prompt that no other begins like."""
    length = max(1, 4 * asked.prompt_tokens - TEMPLATE_BYTES)
    content = (f"{rng.getrandbits(64):016x} " + "motley " * (length // 7 + 1))[:length]
    body = json.dumps(
        {
            "model": model,
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": MAX_TOKENS,
            "seed": asked.output_tokens,
            "messages": [{"role": "user", "content": content}],
        }
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {urlsplit(url).netloc}\r\n"
        "connection: close\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
