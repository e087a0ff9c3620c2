"""SGLang's words and shapes, taken from a live SGLang 0.5.23 with ``--enable-cache-report``."""

from __future__ import annotations

from random import Random
from typing import Any

from msgspec import json

from router.domain.fleet import EngineName
from simulator.engine_server.asks import Ask
from simulator.engine_server.dialect import DONE, FinishReason, Frames, Head, Limits, Usage
from simulator.engine_server.refusal import InvalidBody, Refusal
from simulator.engine_server.sglang_stream import SglangFrames, usage_body

VERSION = "0.5.23"


class SglangDialect:
    """How SGLang talks; see ``dialect.Dialect``."""

    engine: EngineName = "sglang"
    busy_in_band = True

    def __init__(self, version: str = "") -> None:
        self.version = version or VERSION

    def check(self, ask: Ask, limits: Limits) -> None:
        """Raise the ``Refusal`` SGLang answers with; any model name will do (I8 is ours)."""
        if not ask.prompt:
            raise _bad("Messages cannot be empty.")
        if ask.temperature is not None and ask.temperature < 0:
            raise _bad(f"temperature must be a non-negative finite number, got {ask.temperature}.")
        if ask.max_tokens is not None and ask.max_tokens < 0:
            raise _bad(f"max_new_tokens must be at least 0, got {ask.max_tokens}.")
        prompt, limit, wanted = ask.prompt_tokens, limits.max_model_len, ask.max_tokens or 0
        if prompt >= limit:
            longer = f"The input ({prompt} tokens) is longer than the model's context length"
            raise _bad(f"{longer} ({limit} tokens).")
        if prompt + wanted > limit:
            raise _bad(
                f"Requested token count exceeds the model's maximum context length of {limit} "
                f"tokens. You requested a total of {prompt + wanted} tokens: {prompt} tokens from "
                f"the input messages and {wanted} tokens for the completion. Please reduce the "
                "number of tokens in the input messages or the completion to fit within the limit."
            )

    def invalid(self, problem: InvalidBody) -> Refusal:
        """FastAPI's validation error, flattened; the field's path is part of the message."""
        where = tuple((problem.param or "header").split("."))
        message = f"1 validation error:\n  {{'loc': {where}, 'msg': {problem.detail!r}}}"
        return Refusal(400, message, "Bad Request")

    def busy(self) -> Refusal:
        """Answer of ``--max-queued-requests``."""
        return Refusal(503, "The request queue is full.", "503")

    def dead(self) -> None:
        """Streams just break off when the scheduler has gone."""

    def envelope(self, refusal: Refusal) -> bytes:
        """Flat, without a wrapper."""
        return json.encode(_error(refusal))

    def in_band(self, refusal: Refusal) -> bytes:
        """An error event in another spelling than the envelope, and then ``[DONE]``."""
        named = _error(refusal) | {"type": "SERVICE_UNAVAILABLE"}
        return b"data: %b\n\n%b" % (json.encode({"error": named}), DONE)

    def response_id(self, ask: Ask, header: str, rng: Random) -> str:
        """``rid`` of the body, or random; ``X-Request-Id`` is ignored."""
        del header
        return ask.rid or f"{rng.getrandbits(128):032x}"

    def frames(self, head: Head) -> Frames:
        """Events of one stream."""
        return SglangFrames(head)

    def whole(self, head: Head, text: str, finish: FinishReason, usage: Usage) -> bytes:
        """A finished answer in one body."""
        chat = head.kind == "chat"
        said: dict[str, Any] = {"text": text}
        if chat:
            message = {"role": "assistant", "content": text, "reasoning_content": None}
            said = {"message": message}
        choice = {"index": 0} | said | {"logprobs": None, "finish_reason": finish}
        weights = {"version": "default", "start": 0, "end": usage.completion_tokens}
        return json.encode(
            {
                "id": head.response_id,
                "object": "chat.completion" if chat else "text_completion",
                "created": head.created,
                "model": head.model,
                "choices": [choice | {"matched_stop": None}],
                "usage": usage_body(usage),
                "metadata": {"weight_version": "default", "weight_versions": [weights]},
            }
        )

    def models(self, limits: Limits, created: int) -> bytes:
        """The served model."""
        model = {
            "id": limits.model,
            "object": "model",
            "created": created,
            "owned_by": "sglang",
            "root": limits.model,
            "parent": None,
            "max_model_len": limits.max_model_len,
        }
        return json.encode({"object": "list", "data": [model]})

    def tokenized(self, ids: list[int], limits: Limits) -> bytes:
        """Tokens first, as SGLang orders it."""
        body = {"tokens": ids, "count": len(ids), "max_model_len": limits.max_model_len}
        return json.encode(body)

    def detokenized(self, text: str) -> bytes:
        """Under ``text``."""
        return json.encode({"text": text})


def _bad(message: str) -> Refusal:
    return Refusal(400, message, "BadRequestError")


def _error(refusal: Refusal) -> dict[str, Any]:
    return {
        "object": "error",
        "message": refusal.message,
        "type": refusal.kind,
        "param": None,
        "code": refusal.status,
    }
