"""What a client has got of a stream so far, and how the rest joins it without a seam.

Only whole events are let through, so that the client never holds half of one when a backend dies.
The first backend's events pass byte for byte. Those of a continuation are given the first one's
id, date and model; its role event is left out, its counts are added up.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from router.gateway.continuation.resumed import resumed_body
from router.gateway.tally import Usage

_ENDS = (b"\n\n", b"\r\n\r\n")
_DONE = b"[DONE]"
_IDENTITY = ("id", "created", "model")
COMPLETION_TOKENS = 16
"""What the engines take where a legacy completion sets no ``max_tokens``, as OpenAI does."""


class _Delta(msgspec.Struct):
    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[msgspec.Raw] | None = None
    function_call: object = None
    audio: object = None

    @property
    def other_than_text(self) -> bool:
        said = self.reasoning_content or self.reasoning or self.refusal
        return bool(said or self.tool_calls or self.function_call or self.audio)


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: object = None


class _Event(msgspec.Struct):
    id: str = ""
    created: int = 0
    model: str = ""
    choices: list[_Choice] = []
    usage: Usage | None = None
    error: object = None


_EVENT = msgspec.json.Decoder(_Event)


class Transcript:
    """Remembers one stream.

    Args:
        kind: whether text comes as ``delta.content`` or as ``text``.
        max_bytes: of text that is kept; beyond, the stream cannot be continued any more.

    Attributes:
        tokens: of the answer, as far as known: the engine's count if it gave one, else events
            with text.
        fault: what the engine said was wrong with it, in the stream; empty if nothing.
        finished: whether a finish reason or ``[DONE]`` came: all of the text is there.
        usage: the last count of the backend that answers now, as it gave it.
        continuations: how often the answer was gone on with.
    """

    def __init__(self, kind: Literal["chat", "completion"], *, max_bytes: int) -> None:
        self._kind = kind
        self._room = max_bytes
        self._held = b""
        self._parts: list[str] = []
        self._identity: dict[str, Any] = {}
        self._lost = self._done = self._role_shown = False
        self._carried = 0  # tokens of the answer that earlier backends gave
        self._own = 0  # and this one, so far
        self._swallow = ""
        self._prompt_tokens: int | None = None
        self.fault = ""
        self.finished = False
        self.usage: Usage | None = None
        self.continuations = 0

    @property
    def tokens(self) -> int:
        """Tokens of the answer so far."""
        return self._carried + self._own

    @property
    def fresh_tokens(self) -> int:
        """Those of the backend that answers now."""
        return self._own

    @property
    def continuable(self) -> bool:
        """Whether text is all that came, and not too much of it."""
        return not self._lost

    # What comes

    def read(self, data: bytes) -> bytes:
        """Take a read; returns the whole events of it that are the client's, as it is to see them.

        After a ``fault`` nothing more is returned: what follows is not part of the answer.
        """
        held = self._held + data if self._held else data
        end = max(held.rfind(mark) + len(mark) if mark in held else 0 for mark in _ENDS)
        self._held = held[end:]
        told: list[bytes] = []
        for event in _split(held[:end]):
            told.append(self._event(event))
            if self.fault:
                self._held = b""
                break
        return b"".join(told)

    def rest(self) -> bytes:
        """The beginning of an event that did not come to its end."""
        held, self._held = self._held, b""
        return held

    def _event(self, event: bytes) -> bytes:
        payload = _payload(event)
        if payload is None:  # a comment
            return event
        if payload == _DONE:
            self._done = self.finished = True
            return event
        try:
            read = _EVENT.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._lose()
            return event
        if self._faulty(read):
            return b""
        fresh = self._note(read)
        told = self._joined(event, payload, read, fresh) if self.continuations else event
        if any(choice.delta is not None and choice.delta.role for choice in read.choices):
            self._role_shown = True
        return told

    def _faulty(self, read: _Event) -> bool:
        """Whether the engine gave up: an error of its own, or an answer cut short (vLLM's
        ``abort``). An error that it finds in the request would only come again."""
        if read.error:
            error = read.error if isinstance(read.error, dict) else {"message": read.error}
            code = error.get("code")
            if isinstance(code, int) and 400 <= code < 500 and code != 429:
                self._lose()
                return False
            self.fault = str(error.get("message") or "an error")
        elif any(choice.finish_reason == "abort" for choice in read.choices):
            self.fault = "aborted the answer"
        return bool(self.fault)

    def _note(self, read: _Event) -> str:
        """Keep what an event brings; returns its text, without what the client has already."""
        if not self._identity and read.id:
            self._identity = {name: getattr(read, name) for name in _IDENTITY}
        text = ""
        for choice in read.choices:
            delta = choice.delta
            text += (delta.content if delta is not None else choice.text) or ""
            if choice.index or choice.logprobs or (delta is not None and delta.other_than_text):
                self._lose()
            if choice.finish_reason:
                self.finished = True
        if text:
            self._own += 1
            text = self._without_echo(text)
            self._keep(text)
        if read.usage is not None:
            self.usage = read.usage
            self._own = self._own if read.usage.output is None else read.usage.output
            if not self.continuations:
                self._prompt_tokens = read.usage.prompt
        return text

    def _keep(self, text: str) -> None:
        self._room -= len(text.encode("utf-8", "surrogatepass"))
        if self._room < 0:
            self._lose()
        elif not self._lost:
            self._parts.append(text)

    def _lose(self) -> None:
        self._lost = True
        self._parts.clear()

    def _without_echo(self, text: str) -> str:
        """Space at the end of the text so far was left out of the continued request (templates
        trim it), so that the engine says it again."""
        if not self._swallow:
            return text
        same = 0
        while same < min(len(text), len(self._swallow)) and text[same] == self._swallow[same]:
            same += 1
        self._swallow = self._swallow[same:] if same == len(text) else ""
        return text[same:]

    # What goes on

    def resume(self, body: bytes) -> bytes | None:
        """The request for the rest, from the client's own; ``None`` if nothing is left to ask.

        Args:
            body: as the client sent it.
        """
        text = "".join(self._parts)
        kept = text.rstrip()
        self._swallow = text[len(kept) :]
        self._carried += self._own
        self._own, self.usage = 0, None
        self.continuations += 1
        self.fault, self._held = "", b""
        default = COMPLETION_TOKENS if self._kind == "completion" else None
        return resumed_body(body, self._kind, kept, self._carried, default)

    def closing(self) -> bytes:
        """What ends the stream where all of the text is there and its end was lost."""
        if self._done:
            return b""
        self._done = True
        if self.finished:
            return b"data: [DONE]\n\n"
        chat = self._kind == "chat"
        said: dict[str, Any] = {"delta": {}} if chat else {"text": ""}
        kind = "chat.completion.chunk" if chat else "text_completion"
        choice = {"index": 0, **said, "finish_reason": "length"}
        last = {**self._identity, "object": kind, "choices": [choice]}
        return b"data: " + msgspec.json.encode(last) + b"\n\ndata: [DONE]\n\n"

    def _joined(self, event: bytes, payload: bytes, read: _Event, fresh: str) -> bytes:
        """An event of a continuation as the client is to see it; empty if it says nothing new."""
        if not read.choices and read.usage is None:
            return event
        document: dict[str, Any] = msgspec.json.decode(payload)
        document.update(self._identity)
        says = bool(fresh) or not read.choices
        for choice, known in zip(document.get("choices") or (), read.choices, strict=True):
            says = says or bool(known.finish_reason)
            if known.delta is None:
                choice["text"] = fresh
                continue
            says = says or known.delta.other_than_text or not self._role_shown
            if self._role_shown:
                choice["delta"].pop("role", None)
            if known.delta.content is not None:
                choice["delta"]["content"] = fresh
        if not says:
            return b""
        if read.usage is not None:
            self._add_up(document["usage"])
        return b"data: " + msgspec.json.encode(document) + b"\n\n"

    def _add_up(self, usage: dict[str, Any]) -> None:
        """The engine took the text so far for prompt; the client takes it for the answer."""
        prompt = usage.get("prompt_tokens") or 0
        ours = prompt - self._carried if self._prompt_tokens is None else self._prompt_tokens
        usage["prompt_tokens"] = ours = max(ours, 0)
        usage["completion_tokens"] = (usage.get("completion_tokens") or 0) + self._carried
        usage["total_tokens"] = ours + usage["completion_tokens"]
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict) and isinstance(details.get("cached_tokens"), int):
            details["cached_tokens"] = min(details["cached_tokens"], ours)


def _split(whole: bytes) -> list[bytes]:
    """Events, each with the blank line that ends it."""
    mark = _ENDS[0] if b"\r\n\r\n" not in whole else _ENDS[1]
    return [part + mark for part in whole.split(mark) if part]


def _payload(event: bytes) -> bytes | None:
    """The ``data`` of an event; ``None`` if it has none."""
    lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None
