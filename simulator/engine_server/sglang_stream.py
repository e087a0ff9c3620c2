"""The server-sent events of SGLang 0.5.23."""

from __future__ import annotations

from typing import Any

from msgspec import json

from simulator.engine_server.dialect import DONE, FinishReason, Head, Usage

_OPEN = ',"logprobs":null,"finish_reason":null,"matched_stop":null}]'


def usage_body(usage: Usage) -> dict[str, Any]:
    """``usage`` of a whole answer and of events."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "completion_tokens": usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "reasoning_tokens": 0,
        "completion_tokens_details": None,
    }


class SglangFrames:
    """Chunk shapes of one streamed answer.

    A chat ends with an event of its own for the finish reason, a completion has the reason on
    its last token and ``"usage":null`` on every other event.
    """

    def __init__(self, head: Head) -> None:
        self._head = head
        self._chat = head.kind == "chat"
        about = json.encode(
            {
                "id": head.response_id,
                "object": "chat.completion.chunk" if self._chat else "text_completion",
                "created": head.created,
                "model": head.model,
            }
        ).decode()
        self._start = f"data: {about[:-1]}"
        wrap = '"delta":{"reasoning_content":null,"content":"' if self._chat else '"text":"'
        self._before = f'{self._start},"choices":[{{"index":0,{wrap}'
        self._quote = '"}' if self._chat else '"'

    def opening(self, usage: Usage) -> bytes:
        """The role event, without usage; legacy completions have none."""
        del usage
        if not self._chat:
            return b""
        role = '{"index":0,"delta":{"reasoning_content":null,"role":"assistant","content":""}'
        return f'{self._start},"choices":[{role}{_OPEN}}}\n\n'.encode()

    def token(self, text: str, usage: Usage) -> bytes:
        """Event of a token that is not the last."""
        return f"{self._before}{text}{self._quote}{_OPEN}{self._every(usage)}}}\n\n".encode()

    def closing(self, text: str, finish: FinishReason, usage: Usage) -> bytes:
        """The last token, the reason, usage if asked for, ``[DONE]``."""
        reason = f',"logprobs":null,"finish_reason":"{finish}","matched_stop":null}}]'
        if self._chat:
            last = self.token(text, usage).decode() if text else ""
            empty = '{"index":0,"delta":{"reasoning_content":null}'
            last += f'{self._start},"choices":[{empty}{reason}}}\n\n'
        else:
            last = f"{self._before}{text}{self._quote}{reason}{self._every(usage)}}}\n\n"
        if self._head.usage_at_the_end:
            total = json.encode(usage_body(usage)).decode()
            last += f'{self._start},"choices":[],"usage":{total}}}\n\n'
        return last.encode() + DONE

    def _every(self, usage: Usage) -> str:
        if self._head.usage_in_every_chunk:
            return f',"usage":{json.encode(usage_body(usage)).decode()}'
        return "" if self._chat else ',"usage":null'
