"""The server-sent events of vLLM 0.32.0."""

from __future__ import annotations

from typing import Any

from msgspec import json

from simulator.engine_server.dialect import DONE, FinishReason, Head, Usage


def usage_body(usage: Usage) -> dict[str, Any]:
    """``usage`` of a whole answer and of the last event."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "completion_tokens": usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


class VllmFrames:
    """Chunk shapes of one streamed answer; the finish reason rides on the last token."""

    def __init__(self, head: Head, fingerprint: str) -> None:
        chat = head.kind == "chat"
        self._head = head
        self._fingerprint = f',"system_fingerprint":"{fingerprint}"'
        about = json.encode(
            {
                "id": head.response_id,
                "object": "chat.completion.chunk" if chat else "text_completion",
                "created": head.created,
                "model": head.model,
            }
        ).decode()
        self._start = f"data: {about[:-1]}"
        wrap = '"delta":{"content":"' if chat else '"text":"'
        self._before = f'{self._start},"choices":[{{"index":0,{wrap}'
        tail = ',"token_ids":null}]' if chat else ',"prompt_token_ids":null,"token_ids":null}]'
        logprobs = '"}' if chat else '"'
        self._after = f'{logprobs},"logprobs":null,"finish_reason":'
        self._more = "null" + ("" if chat else ',"stop_reason":null') + tail
        self._last = ',"stop_reason":null' + tail

    def token(self, text: str, usage: Usage) -> bytes:
        """Event of a token that is not the last."""
        every = self._running(usage) if self._head.usage_in_every_chunk else ""
        return f"{self._before}{text}{self._after}{self._more}{every}}}\n\n".encode()

    def closing(self, text: str, finish: FinishReason, usage: Usage) -> bytes:
        """The last token with its reason, usage if asked for, ``[DONE]``."""
        every = self._running(usage) if self._head.usage_in_every_chunk else ""
        at_end = self._head.usage_at_the_end
        mark = "" if at_end else self._fingerprint
        last = f'{self._before}{text}{self._after}"{finish}"{self._last}{every}{mark}}}\n\n'
        if at_end:
            total = json.encode(usage_body(usage)).decode()
            last += f'{self._start},"choices":[],"usage":{total}{self._fingerprint}}}\n\n'
        return last.encode() + DONE

    def opening(self, usage: Usage) -> bytes:
        """The role event; legacy completions have none."""
        if self._head.kind != "chat":
            return b""
        role = '{"index":0,"delta":{"role":"assistant","content":""},'
        choice = f'{role}"logprobs":null,"finish_reason":null}}'
        every = self._running(usage) if self._head.usage_in_every_chunk else ""
        about_prompt = ',"prompt_token_ids":null,"prompt_text":null'
        return f'{self._start},"choices":[{choice}]{every}{about_prompt}}}\n\n'.encode()

    @staticmethod
    def _running(usage: Usage) -> str:
        body = {
            "prompt_tokens": usage.prompt_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            "completion_tokens": usage.completion_tokens,
            "completion_tokens_details": None,
        }
        return f',"usage":{json.encode(body).decode()}'
