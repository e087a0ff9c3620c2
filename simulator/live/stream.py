"""A streamed completion as the client sees it: when how many tokens had come. Sans-IO.

Chunks are no tokens: engines put several into one when the client or the server is slow, and send
none for a token that is half a character. So the engine's own count is asked for in every chunk
(``continuous_usage_stats``, which vLLM and SGLang have); where it is not given, the chunks are
spread over the final count.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import Any

import msgspec

from router.domain.errors import MotleyError


class AnswerError(MotleyError):
    """One request that the engine did not serve to its end.

    Attributes:
        reason: machine-readable, for counting.
    """

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


@dataclass(slots=True)
class Answer:
    """One answer.

    Attributes:
        sent_s: when the request went out.
        at_s, tokens: at each time, how many tokens had come; both ascend.
        prompt_tokens, cached_tokens: as the engine counted; 0 where it did not tell.
    """

    sent_s: float
    at_s: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0

    @property
    def first_s(self) -> float:
        """When the first token came."""
        return self.at_s[0]

    @property
    def last_s(self) -> float:
        """When the last token came."""
        return self.at_s[-1]

    @property
    def output_tokens(self) -> int:
        """Tokens of the whole answer."""
        return self.tokens[-1]

    def between(self, start_s: float, end_s: float) -> tuple[list[float], list[int]]:
        """The times from ``start_s`` to ``end_s``, both included, and their token counts."""
        a, b = bisect_left(self.at_s, start_s), bisect_right(self.at_s, end_s)
        return self.at_s[a:b], self.tokens[a:b]


class _Cached(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: _Cached | None = None


class _Chunk(msgspec.Struct):
    choices: list[msgspec.Raw] = []
    usage: _Usage | None = None
    error: Any = None


class StreamReader:
    """Turns the bytes of one event stream into an ``Answer``."""

    def __init__(self, sent_s: float) -> None:
        self.answer = Answer(sent_s)
        self._decoder = msgspec.json.Decoder(_Chunk)
        self._rest = b""
        self._chunks = 0
        self._final: int | None = None
        self._counted = self._done = False

    def feed(self, piece: bytes, now_s: float) -> None:
        """Take note of what came at ``now_s``.

        Raises:
            AnswerError: the engine reports an error in the stream, or sends no JSON.
        """
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:].strip(), now_s)

    def finish(self) -> Answer:
        """The whole answer.

        Raises:
            AnswerError: the stream was cut, or held no token.
        """
        if not self._done:
            raise AnswerError("cut", "the stream ended without [DONE]")
        if not self.answer.tokens:
            raise AnswerError("empty", "the answer holds no token")
        if not self._counted and self._final:
            ratio = self._final / self.answer.tokens[-1]
            self.answer.tokens = [max(1, round(count * ratio)) for count in self.answer.tokens]
        return self.answer

    def _event(self, data: bytes, now_s: float) -> None:
        if data == b"[DONE]":
            self._done = True
            return
        try:
            chunk = self._decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise AnswerError("not_json", f"an event is not what OpenAI sends: {error}") from None
        if chunk.error:
            raise AnswerError("in_stream", f"the engine reports in the stream: {chunk.error}")
        if chunk.choices:
            self._chunks += 1
        if chunk.usage is not None:
            self._usage(chunk.usage, counted=bool(chunk.choices))
        if chunk.choices:
            told = chunk.usage.completion_tokens if chunk.usage is not None else None
            self._mark(self._chunks if told is None else told, now_s)

    def _usage(self, usage: _Usage, *, counted: bool) -> None:
        answer = self.answer
        answer.prompt_tokens = usage.prompt_tokens
        if usage.prompt_tokens_details is not None:
            answer.cached_tokens = usage.prompt_tokens_details.cached_tokens or 0
        self._final = usage.completion_tokens
        self._counted |= counted

    def _mark(self, tokens: int, now_s: float) -> None:
        """A chunk that brings no new token (a role, a finish reason) leaves no mark."""
        counts = self.answer.tokens
        if tokens > (counts[-1] if counts else 0):
            self.answer.at_s.append(now_s)
            counts.append(tokens)
