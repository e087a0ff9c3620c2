"""vLLM's words and shapes, taken from a live vLLM 0.32.0.

Run as with ``--enable-prompt-tokens-details`` and ``--enable-server-load-tracking``.
"""

from __future__ import annotations

from random import Random
from typing import Any

from msgspec import json

from router.domain.fleet import EngineName
from simulator.engine_server.asks import Ask
from simulator.engine_server.dialect import DONE, FinishReason, Frames, Head, Limits, Usage
from simulator.engine_server.refusal import InvalidBody, Refusal
from simulator.engine_server.vllm_stream import VllmFrames, usage_body

VERSION = "0.32.0"
CORE_DIED = "EngineCore encountered an issue. See stack trace (above) for the root cause."
BUSY = (
    "The engine is currently busy and cannot accept new requests. "
    "Please try again later or on a different instance."
)
NO_STREAM = "Stream options can only be defined when `stream=True`."
CONTINUES_ANEW = "Cannot set both `continue_final_message` and `add_generation_prompt` to True."
EMPTY_CHAT = "Cannot apply chat template to an empty conversation. Provide at least one message."


class VllmDialect:
    """How vLLM talks; see ``dialect.Dialect``."""

    engine: EngineName = "vllm"
    busy_in_band = False

    def __init__(self, version: str = "") -> None:
        self.version = version or VERSION
        self._fingerprint = f"vllm-{self.version}-emulated"

    def check(self, ask: Ask, limits: Limits) -> None:
        """Raise the ``Refusal`` vLLM answers with, in the order it checks."""
        if ask.model not in {"", limits.model}:
            served = f"Valid aliases: {limits.model}."
            message = f"The model `{ask.model}` does not exist. {served}"
            raise Refusal(404, message, "NotFoundError", "model")
        if ask.stream_options is not None and not ask.stream:
            raise _bad(NO_STREAM, "stream_options")
        if ask.temperature is not None and ask.temperature < 0:
            wrong = f"temperature must be non-negative, got {ask.temperature}."
            raise _bad(wrong, "temperature", ask.temperature)
        if ask.continues and ask.adds_prompt:
            raise _bad(CONTINUES_ANEW, "add_generation_prompt")
        if not ask.prompt:
            raise Refusal(400, EMPTY_CHAT, "BadRequestError")
        _check_length(ask, limits.max_model_len)

    def invalid(self, problem: InvalidBody) -> Refusal:
        """FastAPI's validation error, folded into one message as vLLM does."""
        message = f"1 validation error:\n  {problem.detail}"
        return Refusal(400, message, "Bad Request", problem.param)

    def busy(self) -> Refusal:
        """Answer of ``--max-num-queued-reqs``."""
        return Refusal(503, BUSY, "Service Unavailable")

    def dead(self) -> Refusal:
        """Answer after the EngineCore process has gone."""
        return Refusal(500, CORE_DIED, "InternalServerError")

    def envelope(self, refusal: Refusal) -> bytes:
        """Nested under ``error``."""
        return json.encode({"error": _error(refusal)})

    def in_band(self, refusal: Refusal) -> bytes:
        """An error event, and then ``[DONE]`` all the same."""
        return b"data: %b\n\n%b" % (json.encode({"error": _error(refusal)}), DONE)

    def response_id(self, ask: Ask, header: str, rng: Random) -> str:
        """``X-Request-Id`` becomes part of the id."""
        prefix = "chatcmpl" if ask.kind == "chat" else "cmpl"
        return f"{prefix}-{header or f'{rng.getrandbits(64):016x}'}"

    def frames(self, head: Head) -> Frames:
        """Events of one stream."""
        return VllmFrames(head, self._fingerprint)

    def whole(self, head: Head, text: str, finish: FinishReason, usage: Usage) -> bytes:
        """A finished answer in one body."""
        chat = head.kind == "chat"
        nothing = {
            "kv_transfer_params": head.kv_transfer_params,
            "ec_transfer_params": None,
            "metrics": None,
        }
        prompt = {"prompt_logprobs": None, "prompt_token_ids": None}
        return json.encode(
            {
                "id": head.response_id,
                "object": "chat.completion" if chat else "text_completion",
                "created": head.created,
                "model": head.model,
                "choices": [_chat_choice(text, finish) if chat else _text_choice(text, finish)],
                "service_tier": None,
                "system_fingerprint": self._fingerprint,
                "usage": usage_body(usage) | {"completion_tokens_details": None},
                **(prompt | {"prompt_text": None} if chat else {}),
                **nothing,
            }
        )

    def models(self, limits: Limits, created: int) -> bytes:
        """The served model with its permissions."""
        permission = {
            "id": f"modelperm-{limits.model}",
            "object": "model_permission",
            "created": created,
            "allow_create_engine": False,
            "allow_sampling": True,
            "allow_logprobs": True,
            "allow_search_indices": False,
            "allow_view": True,
            "allow_fine_tuning": False,
            "organization": "*",
            "group": None,
            "is_blocking": False,
        }
        model = {
            "id": limits.model,
            "object": "model",
            "created": created,
            "owned_by": "vllm",
            "root": limits.model,
            "parent": None,
            "max_model_len": limits.max_model_len,
            "permission": [permission],
        }
        return json.encode({"object": "list", "data": [model]})

    def tokenized(self, ids: list[int], limits: Limits) -> bytes:
        """Count first, as vLLM orders it."""
        body = {"count": len(ids), "max_model_len": limits.max_model_len, "tokens": ids}
        return json.encode(body | {"token_strs": None})

    def detokenized(self, text: str) -> bytes:
        """Under ``prompt``."""
        return json.encode({"prompt": text})


def _check_length(ask: Ask, limit: int) -> None:
    """Output first, then the sum; vLLM stops counting the prompt one token past the room."""
    wanted = ask.max_tokens
    if wanted is not None and wanted < 1:
        raise _bad(f"max_tokens must be at least 1, got {wanted}.", "max_tokens", wanted)
    if wanted is not None and wanted > limit:
        too_many = f"max_tokens={wanted} cannot be greater than max_model_len={limit}."
        raise _bad(f"{too_many} Please request fewer output tokens.", "max_tokens", wanted)
    if ask.prompt_tokens + max(1, wanted or 0) > limit:
        seen = min(ask.prompt_tokens, limit - (wanted or 0) + 1)
        raise _bad(
            f"This model's maximum context length is {limit} tokens. However, you requested "
            f"{wanted or 0} output tokens and your prompt contains at least {seen} input tokens, "
            f"for a total of at least {seen + (wanted or 0)} tokens. Please reduce the length of "
            "the input prompt or the number of requested output tokens.",
            "input_tokens",
            seen,
        )


def _bad(message: str, param: str, value: float | None = None) -> Refusal:
    cause = f"(parameter={param})" if value is None else f"(parameter={param}, value={value})"
    return Refusal(400, f"{message} {cause}", "BadRequestError", param)


def _error(refusal: Refusal) -> dict[str, Any]:
    return {
        "message": refusal.message,
        "type": refusal.kind,
        "param": refusal.param,
        "code": refusal.status,
    }


def _chat_choice(text: str, finish: FinishReason) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    message |= dict.fromkeys(("refusal", "annotations", "audio", "function_call", "reasoning"))
    choice: dict[str, Any] = {"index": 0, "message": message, "logprobs": None}
    choice |= {"finish_reason": finish, "stop_reason": None}
    return choice | {"token_ids": None, "routed_experts": None}


def _text_choice(text: str, finish: FinishReason) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "text": text, "logprobs": None}
    choice |= {"finish_reason": finish, "stop_reason": None, "token_ids": None}
    nothing = ("prompt_logprobs", "prompt_token_ids", "routed_experts")
    return choice | dict.fromkeys(nothing)
