"""What the router believes, kept apart from what is true.

The truth is ``router.perf.build.iteration_model``; it drives the replicas and nothing else sees
it. The belief is its linear form with the cost of each phase off by a random factor per backend,
as offline profiling leaves it (and as ageing paste and shared hosts make it).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from router.config.build import Belief
from router.domain.fleet import BackendSpec
from router.domain.outcome import Outcome
from router.domain.protocols import LengthPredictor, PerfModel
from router.domain.request import LengthForecast, Request
from router.domain.state import LinearCost
from router.perf.length import BucketLengthPredictor, ConstantLengthPredictor
from simulator.options import ReplayOptions
from simulator.traces.columns import Trace
from telemetry.learned import Learned


@dataclass(frozen=True, slots=True)
class ModelError:
    """Factors by which a belief is off; 1.0 is right."""

    prefill: float = 1.0
    decode: float = 1.0


def draw_error(name: str, sigma: float, seed: int) -> ModelError:
    """Draw the error of one backend: log-normal, median 1.

    Keyed by the name, so a backend that joins does not change the others' errors (I5).
    """
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    prefill, decode = np.exp(sigma * rng.standard_normal(2)).tolist()
    return ModelError(prefill, decode)


def believe(truth: dict[str, PerfModel], options: ReplayOptions) -> Belief:
    """Return the belief about each backend, from the truths by name."""
    sigma = 0.0 if options.oracle else options.model_error

    def belief(spec: BackendSpec) -> LinearCost:
        error = draw_error(spec.name, sigma, options.seed)
        return truth[spec.name].linear().scaled(prefill=error.prefill, decode=error.decode)

    return belief


class OraclePredictor:
    """Says the true length: the bound no predictor can beat. Never used unless asked for (I6)."""

    def __init__(self, trace: Trace) -> None:
        self._outputs = trace.output_tokens

    def forecast(self, request: Request) -> LengthForecast:
        """The truth, as mean and as quantile."""
        tokens = float(self._outputs[int(request.request_id)])
        return LengthForecast(tokens, tokens, tokens * tokens)

    def observe(self, outcome: Outcome) -> None:
        """There is nothing left to learn."""


def make_predictor(
    options: ReplayOptions, trace: Trace, learned: Learned | None = None
) -> LengthPredictor:
    """Build the length predictor that the options ask for; it may know what was learned before."""
    if options.oracle or options.length_predictor == "oracle":
        return OraclePredictor(trace)
    if options.length_predictor == "constant":
        return ConstantLengthPredictor()
    predictor = BucketLengthPredictor()
    if learned is not None:
        predictor.restore(learned.lengths)
    return predictor
