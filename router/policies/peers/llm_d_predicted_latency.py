"""llm-d's predicted latency with one pooled model: no feature tells the GPU.

Online regression of TTFT and TPOT on (KV usage, prompt tokens, waiting, running, prefill tokens in
flight), trained on all backends together; lowest ``0.8 * nTTFT + 0.2 * nTPOT`` wins. llm-d trains
XGBoost in a side-car; recursive least squares on the same features stands in for it. Its own docs
say it is unfit for mixed GPU types. (llm-d-router ``predictedlatency``.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from router.domain.outcome import Outcome
from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.choosing import least
from router.policies.context import PolicyContext

Vector = NDArray[np.float64]
FEATURES = 6
FORGETTING = 0.999
TTFT_WEIGHT, TPOT_WEIGHT = 0.8, 0.2


class _Rls:
    """Recursive least squares with forgetting."""

    def __init__(self) -> None:
        self.theta: Vector = np.zeros(FEATURES)
        self._p = np.eye(FEATURES) * 100.0

    def update(self, x: Vector, y: float) -> None:
        px = self._p @ x
        gain = px / (FORGETTING + float(x @ px))
        self.theta = self.theta + gain * (y - float(x @ self.theta))
        self._p = (self._p - np.outer(gain, px)) / FORGETTING


class LlmDPredictedLatency:
    """Argmin of the pooled prediction, ties at random."""

    def __init__(self, context: PolicyContext) -> None:
        self._rng = context.rng
        self._ttft, self._tpot = _Rls(), _Rls()
        self._sent: dict[str, Vector] = {}

    def choose(
        self,
        request: Request,
        candidates: Sequence[BackendView],
        now: float,  # noqa: ARG002
    ) -> BackendView | None:
        """The lowest predicted."""
        features = np.array([_features(view, request) for view in candidates])
        score = TTFT_WEIGHT * _normalised(features @ self._ttft.theta)
        score += TPOT_WEIGHT * _normalised(features @ self._tpot.theta)
        by_index = {view.index: float(s) for view, s in zip(candidates, score, strict=True)}
        chosen = least(candidates, lambda view: by_index[view.index], self._rng)
        self._sent[request.request_id] = np.array(_features(chosen, request))
        return chosen

    def observe(self, outcome: Outcome) -> None:
        """Train on what was measured."""
        x = self._sent.pop(outcome.request_id, None)
        if x is None or outcome.status != "completed" or outcome.ttft_s is None:
            return
        if outcome.carried_tokens:  # its first token came from another backend
            return
        self._ttft.update(x, outcome.ttft_s)
        if outcome.tpot_s is not None:
            self._tpot.update(x, outcome.tpot_s)


def _features(view: BackendView, request: Request) -> list[float]:
    usage = view.context_tokens / view.kv_capacity_tokens
    return [
        1.0,
        usage,
        request.prompt_tokens / 1000.0,
        view.prefilling / 10.0,
        view.decoding / 10.0,
        view.pending_prefill_tokens / 1000.0,
    ]


def _normalised(values: Vector) -> Vector:
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)
