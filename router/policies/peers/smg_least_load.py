"""Shepherd Model Gateway ``least_load``: queued tokens over measured throughput.

``(Q + I) / T + 0.15 s * k / (1 - k)`` with Q = waiting * 1024 tokens, I = tokens sent since the
last poll, T = the engine's generation rate or 2000 tokens/s, k = KV usage. Polls every 10 s. One
that was never polled: requests in flight * 1024 / mean T of the others.
Its flaw on a mixed fleet: T is measured, so an idle A100 and a busy T4 look alike.
(smg ``model_gateway/src/policies/``.)
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from router.domain.request import Request
from router.domain.state import BackendView, EngineSignals
from router.policies.choosing import least
from router.policies.context import PolicyContext

MEAN_PROMPT_TOKENS = 1024
DEFAULT_TOKENS_PER_S = 2000.0
KV_WEIGHT_S = 0.15


class SmgLeastLoad:
    """Argmin of drain time plus KV pressure, ties at random."""

    scrape_interval_s = 10.0

    def __init__(self, context: PolicyContext) -> None:
        self._rng = context.rng
        self._sent: dict[str, tuple[float, int]] = {}

    def choose(
        self,
        request: Request,
        candidates: Sequence[BackendView],
        now: float,  # noqa: ARG002
    ) -> BackendView | None:
        """The soonest drained."""
        rates = [_rate(view.signals) for view in candidates if view.signals is not None]
        mean_rate = fmean(rates) if rates else DEFAULT_TOKENS_PER_S
        chosen = least(candidates, lambda view: self._load_s(view, mean_rate), self._rng)
        polled_s, tokens = self._since_poll(chosen)
        self._sent[chosen.spec.name] = (polled_s, tokens + request.prompt_tokens)
        return chosen

    def lost(self, backend: str) -> None:
        """The backend left, or fell ill: what was sent there is gone."""
        self._sent.pop(backend, None)

    def _load_s(self, view: BackendView, mean_rate: float) -> float:
        signals = view.signals
        _, sent_tokens = self._since_poll(view)
        if signals is None:
            return view.in_flight * MEAN_PROMPT_TOKENS / mean_rate
        queued = (signals.waiting or 0) * MEAN_PROMPT_TOKENS
        usage = min(signals.kv_usage or 0.0, 0.999)
        return (queued + sent_tokens) / _rate(signals) + KV_WEIGHT_S * usage / (1.0 - usage)

    def _since_poll(self, view: BackendView) -> tuple[float, int]:
        """When the backend was last polled, and the tokens sent to it since."""
        polled_s = view.signals.observed_s if view.signals is not None else float("-inf")
        since_s, tokens = self._sent.get(view.spec.name, (polled_s, 0))
        return (polled_s, tokens) if since_s == polled_s else (polled_s, 0)


def _rate(signals: EngineSignals) -> float:
    return signals.gen_tokens_per_s or DEFAULT_TOKENS_PER_S
