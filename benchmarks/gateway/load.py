"""The load client: closed-loop requests and steady streams over raw keep-alive sockets."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass

HEAD = (
    "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nuser-agent: bench\r\n"
    "accept: application/json\r\ncontent-type: application/json\r\n"
    "authorization: Bearer none\r\ncontent-length: %d\r\n\r\n"
)


def request(size_bytes: int, *, stream: bool) -> bytes:
    """A chat request of about so many bytes."""
    flag = ',"stream":true' if stream else ""
    frame = (
        '{"messages":[{"role":"user","content":"%s"}],"model":"llama-3.1-8b","max_tokens":200%s}'
    )
    words = "hello world, this is a prompt. " * (size_bytes // 31 + 1)
    body = (frame % (words[: max(1, size_bytes - len(frame) - len(flag))], flag)).encode()
    json.loads(body)
    return (HEAD % len(body)).encode() + body


@dataclass
class Result:
    """What one load saw.

    Attributes:
        done: requests answered.
        chunks: events received.
        errors: answers that were not 200 or not whole.
        seconds: wall time.
        latencies_s: of each request, in order of completion.
    """

    done: int
    chunks: int
    errors: int
    seconds: float
    latencies_s: list[float]


async def closed_loop(port: int, size_bytes: int, *, requests: int, concurrency: int) -> Result:
    """Non-streamed requests, so many at once."""
    payload = request(size_bytes, stream=False)
    left = [requests]
    latencies: list[float] = []
    errors = 0

    async def worker() -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        while left[0] > 0:
            left[0] -= 1
            sent = time.perf_counter()
            writer.write(payload)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(length_of(head))
            latencies.append(time.perf_counter() - sent)
            errors += not head.startswith(b"HTTP/1.1 200")
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return Result(len(latencies), 0, errors, time.perf_counter() - began, latencies)


async def streams(port: int, *, count: int, tokens: int, rounds: int) -> Result:
    """``count`` streams at once, ``rounds`` times."""
    payload = request(1024, stream=True)
    chunks = errors = 0
    latencies: list[float] = []

    async def worker(delay_s: float) -> None:
        nonlocal chunks, errors
        await asyncio.sleep(delay_s)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        for _ in range(rounds):
            sent = time.perf_counter()
            writer.write(payload)
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                if not head.startswith(b"HTTP/1.1 200"):
                    errors += 1
                    break
                body = await reader.readuntil(b"\r\n0\r\n\r\n")
            except asyncio.IncompleteReadError:
                errors += 1
                break
            latencies.append(time.perf_counter() - sent)
            seen = body.count(b"data: {")
            chunks += seen
            whole = seen == tokens and b"data: [DONE]" in body
            errors += not whole
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(worker(0.5 * n / count) for n in range(count)))
    return Result(len(latencies), chunks, errors, time.perf_counter() - began, latencies)


def length_of(head: bytes) -> int:
    """Bytes of the body that a head announces."""
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ValueError(f"an answer without a length: {head!r}")
