"""Four engines that cost nothing: fixed answers, streams at a fixed rate, one process.

Usage: mock_engines.py PORTS TOKENS RATE, e.g. ``mock_engines.py 9001,9002 200 50``.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys

import httptools
import uvloop

FILLER = {"logprobs": None, "finish_reason": None, "token_ids": None}


def event(content: str) -> bytes:
    """One chat event as vLLM writes it, about 220 bytes."""
    document = {
        "id": "chatcmpl-9b7beebbac4eb5ed",
        "object": "chat.completion.chunk",
        "created": 1795209026,
        "model": "llama-3.1-8b",
        "choices": [{"index": 0, "delta": {"content": content}, **FILLER}],
    }
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


ANSWER_BODY = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "llama-3.1-8b",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x" * 600}}],
        "usage": {"prompt_tokens": 200, "completion_tokens": 100, "total_tokens": 300},
    }
).encode()
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    % len(ANSWER_BODY)
) + ANSWER_BODY
FACTS_BODY = json.dumps(
    {
        "object": "list",
        "data": [{"id": "llama-3.1-8b", "object": "model", "owned_by": "vllm"}],
        "model_path": "llama-3.1-8b",
        "served_model_name": "llama-3.1-8b",
    }
).encode()
FACTS = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    % len(FACTS_BODY)
) + FACTS_BODY
"""Whatever a router may ask of its engine by GET: its models, its health, its settings."""
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
TOKEN = chunk(event(" token"))
END = chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class MockEngine(asyncio.Protocol):
    """One connection."""

    tokens = 0
    gap_s = 0.0

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._streams = False
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._transport = None

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._transport.abort()  # type: ignore[union-attr] - somebody tries HTTP/2

    def on_message_begin(self) -> None:
        self._streams = False

    def on_body(self, body: bytes) -> None:
        self._streams = self._streams or b'"stream":true' in body

    def on_message_complete(self) -> None:
        assert self._transport is not None
        if self._parser.get_method() == b"GET":
            self._transport.write(FACTS)
        elif self._streams:
            self._left = self.tokens
            self._transport.write(STREAM_HEAD)
            asyncio.get_running_loop().call_later(self.gap_s, self._tick)
        else:
            self._transport.write(ANSWER)

    def _tick(self) -> None:
        if self._transport is None:
            return
        self._left -= 1
        if self._left:
            self._transport.write(TOKEN)
            asyncio.get_running_loop().call_later(self.gap_s, self._tick)
        else:
            self._transport.write(TOKEN + END)


async def serve(ports: list[int]) -> None:
    loop = asyncio.get_running_loop()
    for port in ports:
        await loop.create_server(MockEngine, "127.0.0.1", port, backlog=2048)
    await asyncio.Event().wait()


if __name__ == "__main__":
    MockEngine.tokens, MockEngine.gap_s = int(sys.argv[2]), 1.0 / float(sys.argv[3])
    gc.disable()  # a pause would pass for the gateway's
    uvloop.run(serve([int(port) for port in sys.argv[1].split(",")]))
