"""What one answer cost and how it ended, seen in passing.

The chunk path is the gateway's hottest: two byte searches and one append a read, no JSON, no
split into events. Chunks are not tokens (vLLM and SGLang send none for a token that is half a
character, several tokens may share one), so the engine's own ``usage`` wins where it is there;
it stands in the last reads of an answer.
"""

from __future__ import annotations

import re
from collections import deque
from typing import NamedTuple

import msgspec

from router.gateway.wire import Headers

_TAIL_READS = 4
_HEAD_BYTES = 4_096
TOKEN_MARKS = {b"/v1/messages": b"content_block_delta\ndata:", b"/v1/responses": b".delta\ndata:"}
"""Events that carry tokens, where streams begin with others: Anthropic's ``message_start`` and
``ping``, the Responses API's ``response.created``."""
_ERROR = re.compile(rb'^(?:data: ?\{"error"|event: ?(?:error|response\.failed)\r?$)', re.MULTILINE)
"""How events begin that tell of one: OpenAI's shape, then Anthropic's and the Responses API's."""
_USAGE_KEY = b'"usage"'


class PromptDetails(msgspec.Struct):
    """Part of ``usage``."""

    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """Token counts as the engines state them (Anthropic and Responses names included)."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    input_tokens_details: PromptDetails | None = None
    cache_read_input_tokens: int | None = None

    @property
    def prompt(self) -> int | None:
        """Prompt tokens; ``None`` if unknown."""
        return self.prompt_tokens if self.prompt_tokens is not None else self.input_tokens

    @property
    def output(self) -> int | None:
        """Output tokens; ``None`` if unknown."""
        tokens = self.completion_tokens
        return tokens if tokens is not None else self.output_tokens

    @property
    def cached(self) -> int | None:
        """Prompt tokens found in the prefix cache; ``None`` if unknown."""
        details = self.prompt_tokens_details or self.input_tokens_details
        return details.cached_tokens if details is not None else self.cache_read_input_tokens


_USAGE = msgspec.json.Decoder(Usage)


class End(NamedTuple):
    """How an answer ended.

    Attributes:
        usage: the engine's own count; ``None`` if it gave none.
        finish_reason: why the engine stopped, in its own word; empty if it did not say.
        in_error: whether the answer tells of an error after it had begun: an engine that died, or
            one that was told to stop and cut the answer short (vLLM).
    """

    usage: Usage | None
    finish_reason: str
    in_error: bool


class Tally:
    """Watches one answer go by.

    Args:
        events: whether the answer is an event stream.
        mark: what events with tokens contain; empty if all do. Such streams also tell the prompt's
            length at their beginning only.

    Attributes:
        plain: whether it is a stream of which every event carries tokens.
        tail: the last reads.
        chunks: events seen.
    """

    __slots__ = ("_head", "_mark", "chunks", "events", "plain", "tail")

    def __init__(self, *, events: bool, mark: bytes = b"") -> None:
        self.events = events
        self._mark = mark
        self.plain = events and not mark
        self._head = b""
        self.tail: deque[bytes] = deque(maxlen=_TAIL_READS)
        self.chunks = 0

    def see(self, data: bytes) -> bool:
        """Count one read; returns whether it brought anything but keep-alive comments."""
        self.tail.append(data)
        if not self.events:
            return True
        found = data.count(b"\ndata:") + data.startswith(b"data:")
        if self._mark:
            if not self.chunks:
                self._head = (self._head + data)[:_HEAD_BYTES]
            self.chunks += data.count(self._mark)
        else:
            self.chunks += found
        return found > 0 or not data.startswith(b":")

    def end(self) -> End:
        """What the last reads tell."""
        tail = self.tail[0] if len(self.tail) == 1 else b"".join(self.tail)
        reason = finish_reason_in(tail)
        in_error = reason == "abort" or (self.events and _ERROR.search(tail) is not None)
        usage = usage_in(tail)
        if self._head:
            usage = _joined(usage_in(self._head), usage)
        return End(usage, reason, in_error)

    def output_tokens(self, usage: Usage | None) -> int:
        """Tokens of the answer: the engine's count, else the events, less first and last.

        A stream begins with an event that only names the role and ends with ``[DONE]``.
        """
        if usage is not None and usage.output is not None:
            return usage.output
        if self._mark and self.events:
            return self.chunks
        return max(self.chunks - 2, min(self.chunks, 1))

    def at_event_boundary(self) -> bool:
        """Whether another event can be appended to what has been relayed."""
        if not self.events or not self.tail:
            return False
        return self.tail[-1].endswith((b"\n\n", b"\r\n\r\n"))


NONE_YET = Tally(events=False)
"""Stands in until an answer begins; sees nothing."""


def is_event_stream(headers: Headers) -> bool:
    """Whether an answer with these headers comes in events that can be read in passing; something
    on the way may have compressed them, though nobody asked for that."""
    names = dict(headers)
    told = names.get(b"content-type", b"").lower().startswith(b"text/event-stream")
    return told and names.get(b"content-encoding", b"identity").lower() == b"identity"


def _joined(first: Usage | None, last: Usage | None) -> Usage | None:
    """What an Anthropic stream says at its beginning of the prompt, at its end of the answer."""
    if first is None or last is None or last.prompt is not None:
        return last or first
    last.input_tokens = first.prompt
    if last.cached is None:
        last.cache_read_input_tokens = first.cached
    return last


def first_event(held: bytes, *, at_end: bool = False) -> bytes:
    """The first whole ``data:`` event of a stream's beginning, or nothing while there is none.

    Args:
        held: everything that came so far.
        at_end: whether the stream is over, so that a blank line need not follow.
    """
    start = 0 if held.startswith(b"data:") else held.find(b"\ndata:") + 1
    if start == 0 and not held.startswith(b"data:"):
        return b""
    ends = [e for e in (held.find(b"\n\n", start), held.find(b"\r\n\r\n", start)) if e >= 0]
    if ends:
        return held[start : min(ends)]
    return held[start:] if at_end else b""


def usage_in(tail: bytes) -> Usage | None:
    """The last ``usage`` object in the last bytes of an answer."""
    start = tail.rfind(_USAGE_KEY)
    while start >= 0:
        found = _object_after(tail, start + len(_USAGE_KEY))
        if found is not None:
            return found
        start = tail.rfind(_USAGE_KEY, 0, start)  # "usage": null, as in every other chunk
    return None


_REASON_KEY = b'_reason"'
_REASON = re.compile(rb'(?:finish|stop)_reason"\s*:\s*"([a-z_]{1,40})"')


def finish_reason_in(tail: bytes) -> str:
    """The last finish reason in the last bytes of an answer (Anthropic's ``stop_reason`` too).

    From the end on, as the tail of a large answer is long; ``null``, as in every other chunk, is
    passed over.
    """
    at = tail.rfind(_REASON_KEY)
    while at >= 0:
        found = _REASON.match(tail, max(0, at - 6)) or _REASON.match(tail, max(0, at - 4))
        if found is not None:
            return found[1].decode("ascii")
        at = tail.rfind(_REASON_KEY, 0, at)
    return ""


def _object_after(tail: bytes, position: int) -> Usage | None:
    start = tail.find(b"{", position, position + 8)
    if start < 0 or tail[position:start].strip() != b":":
        return None
    end = tail.find(b"}", start) + 1
    while end:
        candidate = tail[start:end]
        if candidate.count(b"{") == candidate.count(b"}"):
            return _decode(candidate)
        end = tail.find(b"}", end) + 1
    return None


def _decode(document: bytes) -> Usage | None:
    try:
        return _USAGE.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
