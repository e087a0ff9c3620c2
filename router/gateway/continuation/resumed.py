"""The request that asks for the rest of an answer: the client's own, with the text so far.

vLLM and SGLang both take ``continue_final_message``; vLLM wants ``add_generation_prompt`` to be
false with it, SGLang passes over that. Every other field keeps its bytes.
"""

from __future__ import annotations

from typing import Literal

import msgspec

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIMITS = ("max_tokens", "max_completion_tokens")


def resumed_body(
    body: bytes,
    kind: Literal["chat", "completion"],
    text: str,
    tokens: int,
    default_limit: int | None,
) -> bytes | None:
    """The body to send.

    Args:
        body: as the client sent it, found fit by ``rules``.
        kind: chat or legacy completion.
        text: of the answer so far; empty asks for the whole answer.
        tokens: that the client has got of it.
        default_limit: of the engine's, where the client sets none.

    Returns:
        The body, or ``None`` if the client's limit is used up.
    """
    fields = _FIELDS.decode(body)
    if not _shorten(fields, tokens, default_limit):
        return None
    if not text:
        return msgspec.json.encode(fields)
    if kind == "completion":
        prompt: str = msgspec.json.decode(fields["prompt"])
        fields["prompt"] = msgspec.Raw(msgspec.json.encode(prompt + text))
        return msgspec.json.encode(fields)
    last = msgspec.json.encode({"role": "assistant", "content": text})
    messages = bytes(memoryview(fields["messages"])).rstrip()
    fields["messages"] = msgspec.Raw(messages[:-1] + b"," + last + b"]")
    fields["continue_final_message"] = msgspec.Raw(b"true")
    fields["add_generation_prompt"] = msgspec.Raw(b"false")
    return msgspec.json.encode(fields)


def _shorten(fields: dict[str, msgspec.Raw], tokens: int, default_limit: int | None) -> bool:
    """Take what was received off the limits; whether anything is left."""
    limits = {name: value for name in _LIMITS if (value := _number(fields, name)) is not None}
    if not limits and default_limit is not None:
        limits = {"max_tokens": default_limit}
    for name, limit in limits.items():
        if limit - tokens < 1:
            return False
        fields[name] = msgspec.Raw(b"%d" % (limit - tokens))
    least = _number(fields, "min_tokens")
    if least is not None:
        fields["min_tokens"] = msgspec.Raw(b"%d" % max(0, least - tokens))
    return True


def _number(fields: dict[str, msgspec.Raw], name: str) -> int | None:
    try:
        return int(msgspec.json.decode(fields[name], type=float)) if name in fields else None
    except msgspec.ValidationError:
        return None
