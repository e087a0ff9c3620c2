"""AIBrix ``least-latency``: lifetime mean prefill and decode times, scaled to fleet averages.

``queue time + mean prefill / mean prompt_i * P + mean decode / mean output_i * G`` with P and G
the fleet's averages, not this request's. Lifetime means react slowly. (AIBrix
``least_latency.go``.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router.domain.outcome import Outcome
from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.choosing import least
from router.policies.context import PolicyContext


@dataclass(slots=True)
class _Totals:
    requests: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    prompt_tokens: int = 0
    output_tokens: int = 0


class AibrixLeastLatency:
    """Argmin of the expected latency of an average request."""

    def __init__(self, context: PolicyContext) -> None:
        self._rng = context.rng
        self._totals: dict[str, _Totals] = {}
        self._fleet = _Totals()

    def choose(
        self,
        request: Request,  # noqa: ARG002
        candidates: Sequence[BackendView],
        now: float,  # noqa: ARG002
    ) -> BackendView | None:
        """The lowest mean; a backend never used counts as 0 and is tried first."""
        return least(candidates, self._latency_s, self._rng)

    def observe(self, outcome: Outcome) -> None:
        """Add to the lifetime histograms."""
        if outcome.status != "completed" or outcome.first_token_s is None:
            return
        for totals in (self._totals.setdefault(outcome.backend, _Totals()), self._fleet):
            totals.requests += 1
            totals.prefill_s += outcome.first_token_s - outcome.dispatched_s
            totals.decode_s += outcome.finished_s - outcome.first_token_s
            totals.prompt_tokens += outcome.prompt_tokens
            totals.output_tokens += outcome.output_tokens

    def lost(self, backend: str) -> None:
        """The backend left, or fell ill: one that comes back under its name starts anew."""
        self._totals.pop(backend, None)

    def _latency_s(self, view: BackendView) -> float:
        own = self._totals.get(view.spec.name)
        if own is None or not own.prompt_tokens or not own.output_tokens:
            return 0.0
        prompt = self._fleet.prompt_tokens / self._fleet.requests
        output = self._fleet.output_tokens / self._fleet.requests
        return (
            own.prefill_s / own.prompt_tokens * prompt + own.decode_s / own.output_tokens * output
        )
