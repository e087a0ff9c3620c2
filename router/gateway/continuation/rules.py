"""Which streams can be continued, decided from the request alone.

A continuation is the same request with the text so far at its end. That is only right where text
is all there is: a second choice, a grammar, a tool parser or log probabilities would begin anew in
the middle of the answer. Such requests are served as if there were no continuation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from router.gateway.continuation.transcript import Transcript
from router.gateway.terms import CONTINUE, says_no, wants
from router.gateway.wire import Call, RoutingFields

Kind = Literal["chat", "completion"]
KINDS: Mapping[bytes, Kind] = {
    b"/v1/chat/completions": "chat",
    b"/v1/completions": "completion",
}


@dataclass(frozen=True, slots=True)
class ContinuationRules:
    """What the configuration allows (``reliability.continuation``).

    Attributes:
        by_default: continue unless the client says no; else only if it says yes.
        max_per_request: how often one answer may be continued.
        max_bytes: of request body and text so far together; longer ones are not kept.
    """

    by_default: bool = True
    max_per_request: int = 2
    max_bytes: int = 1_048_576


class _Asked(msgspec.Struct):
    """The fields that decide. Any value of a type that is not expected says no."""

    n: int | None = None
    best_of: int | None = None
    use_beam_search: bool | None = None
    echo: bool | None = None
    suffix: str | None = None
    logprobs: object = None
    top_logprobs: int | None = None
    prompt_logprobs: object = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    tools: list[msgspec.Raw] | None = None
    tool_choice: object = None
    functions: list[msgspec.Raw] | None = None
    response_format: object = None
    structured_outputs: object = None
    guided_json: object = None
    guided_regex: object = None
    guided_choice: object = None
    guided_grammar: object = None
    json_schema: object = None
    regex: object = None
    ebnf: object = None
    modalities: list[str] | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None
    messages: list[msgspec.Raw] | None = None
    prompt: object = None


_GRAMMARS = (
    *("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"),
    *("json_schema", "regex", "ebnf"),
)
_DECODER = msgspec.json.Decoder(_Asked)


def transcript_for(
    call: Call, fields: RoutingFields, rules: ContinuationRules
) -> Transcript | None:
    """Whoever remembers this stream, so that it can be continued; ``None`` if it cannot be.

    Args:
        call: with its body.
        fields: what routing read of it.
        rules: of the configuration.
    """
    kind = KINDS.get(call.path)
    if kind is None or fields.stream is not True or len(call.body) > rules.max_bytes:
        return None
    if not _wanted(call, fields, rules) or not _text_only(call.body, kind):
        return None
    return Transcript(kind, max_bytes=rules.max_bytes - len(call.body))


def _wanted(call: Call, fields: RoutingFields, rules: ContinuationRules) -> bool:
    """The header goes before the body, and both before the configuration."""
    if CONTINUE in call.named:
        if wants(call.named, CONTINUE):
            return True
        if says_no(call.named, CONTINUE):
            return False
    if isinstance(fields.motley_continue, bool):
        return fields.motley_continue
    return rules.by_default


def _text_only(body: bytes, kind: Kind) -> bool:
    try:
        asked = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    if _several(asked) or _more_than_text(asked) or _constrained(asked):
        return False
    if kind == "chat":
        begun = asked.continue_final_message or asked.add_generation_prompt is False
        return bool(asked.messages) and not begun
    return isinstance(asked.prompt, str) and not asked.echo and not asked.suffix


def _several(asked: _Asked) -> bool:
    return (asked.n or 1) != 1 or (asked.best_of or 1) != 1 or bool(asked.use_beam_search)


def _more_than_text(asked: _Asked) -> bool:
    tools = bool(asked.tools or asked.functions) and asked.tool_choice != "none"
    # A completion's ``logprobs: 0`` asks for the chosen token's, a chat's ``false`` for none.
    logprobs = asked.logprobs is not None and asked.logprobs is not False
    ids = asked.return_token_ids or asked.return_tokens_as_token_ids
    audio = asked.modalities is not None and asked.modalities != ["text"]
    return bool(tools or logprobs or asked.prompt_logprobs is not None or ids or audio)


def _constrained(asked: _Asked) -> bool:
    if any(getattr(asked, name) is not None for name in _GRAMMARS):
        return True
    form = asked.response_format
    return form is not None and not (isinstance(form, dict) and form.get("type") == "text")
