"""Why one request went where it went: the account of a decision, kept for who asked for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from router.domain.request import Request
from router.domain.state import BackendView


@dataclass(frozen=True, slots=True)
class Score:
    """What a policy thinks of one candidate.

    Attributes:
        score: the least wins; ``None`` if the policy does not score.
        cached_tokens: prompt tokens it believes to be in the backend's prefix cache.
        terms: what the score is the sum of, by name.
        note: why the candidate was out of the question; empty if it was not.
    """

    score: float | None
    cached_tokens: int = 0
    terms: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


@runtime_checkable
class Explains(Protocol):
    """A policy that can tell its scores; optional, and never asked on the hot path."""

    def explain(
        self, request: Request, candidates: Sequence[BackendView], now: float
    ) -> Mapping[str, Score]:
        """Scores by backend name, as ``choose`` saw them; must change nothing."""


@dataclass(slots=True)
class Candidate:
    """One backend of the model at the time of the decision.

    Times in seconds. ``lost_because`` is empty for the chosen one.
    """

    backend: str
    gpu: str
    predicted_ttft_s: float
    predicted_tpot_s: float
    predicted_e2e_s: float
    in_flight: int
    prefilling: int
    backlog_s: float
    kv_share: float
    cached_tokens: int
    price: float
    score: float | None
    terms: dict[str, float]
    lost_because: str


@dataclass(slots=True)
class Explanation:
    """The account of one decision; ``as_json`` is the stable document.

    Attributes:
        request_id, model, slo_class, tenant, prompt_tokens: of the request.
        policy: its class, for people.
        decided_s: when, on the caller's clock.
        waited_s: from arrival until then.
        forecast_mean_tokens, forecast_p90_tokens: expected length of the answer.
        decision: ``assign``, ``wait`` or ``reject``.
        backend: the chosen one; empty if none.
        reason: of a wait or a rejection; empty for an assignment.
        queued: requests waiting in the router then.
        candidates: best first.
        actual: what came of it, once it is over.
        pair: where two backends share the request: ``prefill`` and ``decode``, the predicted
            ``transfer_s``, ``ttft_s`` and ``tpot_s``, and the cost in seconds of the pair and of
            serving it whole (``None`` if nobody could); ``None`` where one serves it.
    """

    request_id: str
    model: str
    slo_class: str
    tenant: str
    prompt_tokens: int
    policy: str
    decided_s: float
    waited_s: float
    forecast_mean_tokens: float
    forecast_p90_tokens: float
    decision: str
    backend: str
    reason: str
    queued: int
    candidates: list[Candidate]
    actual: dict[str, Any] | None = None
    pair: dict[str, Any] | None = None
