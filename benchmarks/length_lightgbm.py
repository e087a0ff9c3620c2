"""Forecasts of output length by gradient-boosted trees, for those who have LightGBM.

Learned from the last ``window`` completions, anew after every ``every`` of them: one model of the
mean, one of the 90th percentile, one of the mean square, on prompt length, the client's limit, the
tenant and the hour of the day. Until there is something to learn from, and for any request that is
new since, the bucket predictor answers.
"""

from __future__ import annotations

import importlib
import math
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from router.domain.errors import ConfigError
from router.domain.outcome import Outcome
from router.domain.request import LengthForecast, Request
from router.perf.length import BucketLengthPredictor

Floats = npt.NDArray[np.float64]
_SHAPE = {"num_leaves": 15, "min_data_in_leaf": 40, "learning_rate": 0.1, "num_threads": 1}
_ROUNDS = 40
_TENANTS = 64


class LightGbmLengthPredictor:
    """Boosted trees over what finished before; the bucket predictor where there are none yet.

    Training blocks for about 0.1 s; give a gateway that cannot spare that the bucket predictor.

    Args:
        window: completions learned from.
        every: completions between two trainings.

    Raises:
        ConfigError: LightGBM is not installed.
    """

    def __init__(self, *, window: int = 4000, every: int = 1000) -> None:
        try:
            self._lightgbm: Any = importlib.import_module("lightgbm")
        except ImportError as error:
            raise ConfigError(
                "the lightgbm length predictor needs LightGBM; install motley[lightgbm]"
            ) from error
        self._buckets = BucketLengthPredictor()
        self._rows: deque[tuple[list[float], int]] = deque(maxlen=window)
        self._every = every
        self._fresh = 0
        self._models: tuple[Any, Any, Any] | None = None

    def forecast(self, request: Request) -> LengthForecast:
        """Mean, 90th percentile and mean square, capped by ``max_tokens``."""
        if self._models is None:
            return self._buckets.forecast(request)
        row = [_features(request.prompt_tokens, request.max_tokens, request.tenant)]
        mean, p90, square = (float(model.predict(row)[0]) for model in self._models)
        limit = request.max_tokens
        mean, p90 = max(mean, 1.0), max(p90, 1.0)
        if limit is not None:
            mean, p90, square = min(mean, limit), min(p90, limit), min(square, limit * limit)
        return LengthForecast(mean, max(mean, p90), max(square, mean * mean))

    def observe(self, outcome: Outcome) -> None:
        """Keep one completion; train when enough have come."""
        self._buckets.observe(outcome)
        if outcome.status != "completed" or outcome.output_tokens < 1:
            return
        features = _features(outcome.prompt_tokens, outcome.max_tokens, outcome.tenant)
        self._rows.append((features, outcome.output_tokens))
        self._fresh += 1
        if self._fresh >= self._every:
            self._fresh = 0
            self._models = self._trained()

    def _trained(self) -> tuple[Any, Any, Any]:
        x = np.array([row for row, _ in self._rows])
        y: Floats = np.array([tokens for _, tokens in self._rows], dtype=np.float64)
        return (
            self._fit(x, y, objective="regression"),
            self._fit(x, y, objective="quantile", alpha=0.9),
            self._fit(x, y * y, objective="regression"),
        )

    def _fit(self, x: Floats, y: Floats, **wanted: Any) -> Any:
        data = self._lightgbm.Dataset(x, y, params={"verbose": -1})
        return self._lightgbm.train({**_SHAPE, **wanted, "verbose": -1}, data, _ROUNDS)


def _features(prompt_tokens: int, max_tokens: int | None, tenant: str) -> list[float]:
    limit = -1.0 if max_tokens is None else math.log2(max_tokens + 1.0)
    return [math.log2(prompt_tokens + 1.0), limit, float(sum(tenant.encode()) % _TENANTS)]
