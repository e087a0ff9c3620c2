"""What differs between engines, as one protocol: words, envelopes and chunk shapes."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any, Literal, Protocol

from router.domain.fleet import EngineName
from simulator.engine_server.asks import Ask, AskKind
from simulator.engine_server.refusal import InvalidBody, Refusal

FinishReason = Literal["stop", "length"]
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the engine serves: the one model, and its context in tokens."""

    model: str
    max_model_len: int


@dataclass(frozen=True, slots=True)
class Head:
    """What every chunk of one answer repeats.

    Attributes:
        kind: which endpoint.
        response_id: ``id`` of the answer.
        created: Unix time, whole seconds.
        model: the name to echo.
        usage_in_every_chunk: vLLM's and SGLang's ``continuous_usage_stats``.
        usage_at_the_end: the API's ``include_usage``.
        kv_transfer_params: where vLLM keeps the KV for another engine, if it does.
    """

    kind: AskKind
    response_id: str
    created: int
    model: str
    usage_in_every_chunk: bool
    usage_at_the_end: bool
    kv_transfer_params: dict[str, Any] | None = None


@dataclass(slots=True)
class Usage:
    """Tokens of one answer so far."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


class Frames(Protocol):
    """The server-sent events of one answer."""

    def opening(self, usage: Usage) -> bytes:
        """Event before the first token; empty for legacy completions."""

    def token(self, text: str, usage: Usage) -> bytes:
        """Event of a token that is not the last."""

    def closing(self, text: str, finish: FinishReason, usage: Usage) -> bytes:
        """Events from the last token (``text``; empty if there was none) to ``[DONE]``."""


class Dialect(Protocol):
    """How one engine talks."""

    engine: EngineName
    version: str

    def check(self, ask: Ask, limits: Limits) -> None:
        """Raise the ``Refusal`` this engine answers with, if it refuses ``ask``."""

    def invalid(self, problem: InvalidBody) -> Refusal:
        """A body that does not parse, in this engine's words."""

    def busy(self) -> Refusal:
        """The engine's own queue is full."""

    def dead(self) -> Refusal | None:
        """The engine core has gone; ``None`` if this engine falls silent."""

    def envelope(self, refusal: Refusal) -> bytes:
        """JSON body of a refusal."""

    def in_band(self, refusal: Refusal) -> bytes:
        """The same inside an open stream, up to ``[DONE]``."""

    @property
    def busy_in_band(self) -> bool:
        """Whether a full queue answers a stream with 200 and an error event."""

    def response_id(self, ask: Ask, header: str, rng: Random) -> str:
        """``id`` of the answer; ``header`` is ``X-Request-Id``, empty when absent."""

    def frames(self, head: Head) -> Frames:
        """Event shapes for one streamed answer."""

    def whole(self, head: Head, text: str, finish: FinishReason, usage: Usage) -> bytes:
        """JSON body of an answer that is not streamed."""

    def models(self, limits: Limits, created: int) -> bytes:
        """JSON body of ``/v1/models``."""

    def tokenized(self, ids: list[int], limits: Limits) -> bytes:
        """JSON body of ``/tokenize``."""

    def detokenized(self, text: str) -> bytes:
        """JSON body of ``/detokenize``."""
