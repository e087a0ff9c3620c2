"""One streamed answer as the client sees it. Sans-IO: bytes and times in, times out.

A chunk counts from the first that carries content: a role, a keep-alive comment or a usage chunk
is no token. Chunks are no tokens either (engines merge them), so tokens are the server's count.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec


@dataclass(slots=True)
class Sample:
    """One request and what came of it.

    Attributes:
        due_s, sent_s: when it should have gone out, and did; the difference is the client's fault.
        first_s, last_s: first and last content; ``None`` if none came.
        gaps_s: seconds between chunks with content.
        input_tokens, output_tokens: as the server counted; chunks stand in where it does not.
        counted: whether the server did.
        error: why it failed; empty for an answer that came to its end.
        backend: who served it, where a gateway tells.
    """

    due_s: float
    sent_s: float
    first_s: float | None = None
    last_s: float | None = None
    gaps_s: list[float] = field(default_factory=list)
    input_tokens: int = 0
    output_tokens: int = 0
    counted: bool = False
    error: str = ""
    backend: str = ""

    @property
    def ok(self) -> bool:
        """Whether it came to its end."""
        return not self.error

    @property
    def ttft_s(self) -> float | None:
        """Sent to first content."""
        return None if self.first_s is None else self.first_s - self.sent_s

    @property
    def e2e_s(self) -> float | None:
        """Sent to last content."""
        return None if self.last_s is None else self.last_s - self.sent_s

    @property
    def tpot_s(self) -> float | None:
        """Seconds per token after the first; ``None`` below two tokens."""
        if self.first_s is None or self.last_s is None or self.output_tokens < 2:
            return None
        return (self.last_s - self.first_s) / (self.output_tokens - 1)


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Any] | None = None

    def tells(self) -> bool:
        """Whether it carries part of an answer."""
        return bool(self.content or self.reasoning_content or self.reasoning or self.tool_calls)


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


class AnswerReader:
    """Reads one event stream into a ``Sample``."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self._decoder = msgspec.json.Decoder(_Chunk)
        self._rest = b""
        self._chunks = 0
        self._done = False

    def feed(self, piece: bytes, now_s: float) -> None:
        """Take note of what came at ``now_s``; an error is kept in the sample."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:].strip(), now_s)

    def finish(self) -> Sample:
        """The sample, whole."""
        sample = self.sample
        if not sample.counted:
            sample.output_tokens = self._chunks
        if not sample.error and not self._done:
            sample.error = "cut: the stream ended without [DONE]"
        if not sample.error and sample.first_s is None:
            sample.error = "empty: the answer holds no content"
        return sample

    def _event(self, data: bytes, now_s: float) -> None:
        if data == b"[DONE]":
            self._done = True
            return
        try:
            chunk = self._decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.sample.error = "garbage: an event is not what OpenAI sends"
            return
        if chunk.error:
            self.sample.error = f"in stream: {chunk.error}"[:200]
        if chunk.usage is not None:
            self._count(chunk.usage)
        if any(choice.text or (choice.delta and choice.delta.tells()) for choice in chunk.choices):
            self._mark(now_s)

    def _count(self, usage: _Usage) -> None:
        self.sample.input_tokens = usage.prompt_tokens
        if usage.completion_tokens is not None:
            self.sample.output_tokens = usage.completion_tokens
            self.sample.counted = True

    def _mark(self, now_s: float) -> None:
        sample = self.sample
        self._chunks += 1
        if sample.first_s is None:
            sample.first_s = now_s
        elif sample.last_s is not None:
            sample.gaps_s.append(now_s - sample.last_s)
        sample.last_s = now_s
