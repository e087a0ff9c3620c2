"""How one attempt at one backend ended: what observers learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from router.domain.slo import Slo

OutcomeStatus = Literal["completed", "failed", "cancelled"]


class Meanwhile(NamedTuple):
    """What the backend did between an attempt's first token and its end, as the router saw it.

    Attributes:
        seconds: how long that was.
        seq_s: how many sequences decoded, itself included, integrated over that time.
        prefills: iterations that computed prompts; those that end together were one.
        prefill_tokens, prefill_pairs: prompt tokens computed, prefix cache deducted as far as it
            was foreseen, and their attention pairs.
    """

    seconds: float
    seq_s: float
    prefills: int
    prefill_tokens: int
    prefill_pairs: float


@dataclass(frozen=True, slots=True)
class PrefillHalf:
    """Where and when the prompt of a request was computed, if not where its answer was.

    Attributes:
        backend: its name.
        finished_s: when it was computed; ``None`` if that was never heard.
        prefilling_at_dispatch, decoding_at_dispatch, fresh_tokens: see ``Outcome``.
    """

    backend: str
    finished_s: float | None
    prefilling_at_dispatch: int
    decoding_at_dispatch: int
    fresh_tokens: int


class Begun(Protocol):
    """An attempt whose first token has come; the attributes are those of ``Outcome``."""

    @property
    def dispatched_s(self) -> float:
        """When it was sent."""

    @property
    def first_token_s(self) -> float | None:
        """When its first token came."""

    @property
    def prompt_tokens(self) -> int:
        """As estimated or as the request said."""

    @property
    def fresh_tokens(self) -> int:
        """Those expected not to be in the prefix cache."""

    @property
    def prefilling_at_dispatch(self) -> int:
        """Requests ahead of it."""

    @property
    def decoding_at_dispatch(self) -> int:
        """Requests decoding there."""


@dataclass(slots=True)
class Outcome:
    """One finished attempt. Not frozen, for speed only: nobody writes to one.

    Times are on the caller's clock, in seconds (I4: arrival <= dispatch <= first token <= end).

    Attributes:
        request_id, model, slo_class, tenant: from the request.
        backend: name of the backend.
        status: how it ended.
        arrival_s, dispatched_s, first_token_s, finished_s: when; ``first_token_s`` is ``None``
            if no token came.
        prompt_tokens: as counted by the engine where it says so, else as estimated.
        output_tokens: tokens received.
        cached_tokens: prompt tokens the engine found in its prefix cache; ``None`` if unknown.
        max_tokens: the client's limit, if any.
        prefilling_at_dispatch: requests ahead of it in the same backend's prefill queue when
            it was sent; 0 means its prefill was not queued behind another's.
        decoding_at_dispatch: requests decoding there when it was sent.
        predicted_ttft_s, predicted_tpot_s: the belief at dispatch.
        predicted_output_tokens: the forecast at dispatch.
        slo: targets of the request's own; ``None`` means those of its class.
        fresh_tokens: prompt tokens that were expected not to be in the prefix cache.
        meanwhile: what went on beside its decode phase; ``None`` if it had none.
        carried_tokens: tokens of the answer from attempts that broke before this one, which are
            part of ``prompt_tokens`` here and not of ``output_tokens``.
        shown_first_s: when the client got the first of those; ``None`` if there were none.
        prefill: the other half, where two backends shared the request; ``backend`` is the one
            that gave the answer.
    """

    request_id: str
    model: str
    slo_class: str
    tenant: str
    backend: str
    status: OutcomeStatus
    arrival_s: float
    dispatched_s: float
    first_token_s: float | None
    finished_s: float
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int | None
    max_tokens: int | None
    prefilling_at_dispatch: int
    decoding_at_dispatch: int
    predicted_ttft_s: float
    predicted_tpot_s: float
    predicted_output_tokens: float
    slo: Slo | None = None
    fresh_tokens: int = 0
    meanwhile: Meanwhile | None = None
    carried_tokens: int = 0
    shown_first_s: float | None = None
    prefill: PrefillHalf | None = None

    @property
    def answer_tokens(self) -> int:
        """Tokens of the answer as the client has it."""
        return self.output_tokens + self.carried_tokens

    @property
    def question_tokens(self) -> int:
        """Tokens of the prompt as the client sent it."""
        return max(0, self.prompt_tokens - self.carried_tokens)

    @property
    def seen_first_s(self) -> float | None:
        """When the client got its first token, from whichever attempt."""
        return self.first_token_s if self.shown_first_s is None else self.shown_first_s

    def targets(self, slos: Mapping[str, Slo]) -> Slo | None:
        """What it asked for itself, or the targets of its class for its model, if any."""
        if self.slo is not None:
            return self.slo
        slo = slos.get(self.slo_class)
        return slo.of_model(self.model) if slo is not None and slo.models else slo

    @property
    def ttft_s(self) -> float | None:
        """Arrival at the gateway to the client's first token."""
        first_s = self.seen_first_s
        return None if first_s is None else first_s - self.arrival_s

    @property
    def e2e_s(self) -> float:
        """Arrival at the gateway to the end."""
        return self.finished_s - self.arrival_s

    @property
    def tpot_s(self) -> float | None:
        """(E2E - TTFT) / (tokens of the answer - 1); ``None`` below two tokens."""
        first_s, tokens = self.seen_first_s, self.answer_tokens
        if first_s is None or tokens < 2:
            return None
        return (self.finished_s - first_s) / (tokens - 1)
