"""How well output lengths are forecast: ``python -m benchmarks.length_prediction``.

Every request of a trace is forecast in the order of arrival, from those that finished before: an
answer is learned from ``LAG`` requests later. Figures are means over the requests after the
first thousand: pinball loss of the 90th percentile and of the median (half of the absolute error,
of the mean forecast), the share of answers at or below the forecast 90th percentile (0.9 is
right), the share whose octave the mean forecast hits within one, and how well the mean residual
of a request in flight is told (relative error of the forecast of what is still to come, summed
over those in flight, which is what placement uses). All against a constant, the distribution of
the whole trace (the best constant, known only afterwards), and the truth.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from benchmarks.length_lightgbm import LightGbmLengthPredictor
from router.domain.outcome import Outcome
from router.domain.protocols import LengthPredictor
from router.domain.request import LengthForecast, Request
from router.perf.length import BucketLengthPredictor, ConstantLengthPredictor
from simulator.belief import OraclePredictor
from simulator.traces.columns import Trace
from simulator.workload import TraceSpec, build_trace

REPOSITORY = Path(__file__).resolve().parents[1]
TRACES = Path(os.environ.get("MOTLEY_SHARED", REPOSITORY.parent / "shared")) / "data" / "traces"
SOURCES = {
    "azure-conv": ("azure2023_conv.csv", "azure-conv-like"),
    "azure-code": ("azure2023_code.csv", "azure-code-like"),
    "mooncake-prefix": ("mooncake_synthetic.jsonl", "chat-prefix-like"),
}
LAG = 60
SKIP = 1000


class Hindsight(ConstantLengthPredictor):
    """The best constant, known only when the trace is over."""

    def __init__(self, trace: Trace) -> None:
        lengths = sorted(trace.output_tokens)
        mean = sum(lengths) / len(lengths)
        square = sum(n * n for n in lengths) / len(lengths)
        super().__init__(LengthForecast(mean, lengths[int(0.9 * len(lengths))], square))


PREDICTORS: dict[str, Callable[[Trace], LengthPredictor]] = {
    "constant": lambda _: ConstantLengthPredictor(),
    "best constant": Hindsight,
    "bucket": lambda _: BucketLengthPredictor(),
    "lightgbm": lambda _: LightGbmLengthPredictor(),
    "oracle": OraclePredictor,
}


def request_of(trace: Trace, i: int) -> Request:
    record = trace.record(i)
    return Request(
        str(i), "m", record.arrival_s, record.input_tokens, record.max_tokens, tenant=record.tenant
    )


def outcome_of(request: Request, tokens: int) -> Outcome:
    now = request.arrival_s
    return Outcome(
        request.request_id,
        request.model,
        request.slo_class,
        request.tenant,
        "b",
        "completed",
        now,
        now,
        now,
        now,
        request.prompt_tokens,
        tokens,
        None,
        request.max_tokens,
        0,
        0,
        math.nan,
        math.nan,
        0.0,
    )


def pinball(tokens: float, quantile: float, forecast: float) -> float:
    gap = tokens - forecast
    return max(quantile * gap, (quantile - 1.0) * gap)


class Score:
    """Sums over one trace."""

    def __init__(self) -> None:
        self.count = 0
        self.p90 = self.median = self.below = self.octave = 0.0
        self.residual = self.residual_truth = 0.0

    def add(self, forecast: LengthForecast, tokens: int) -> None:
        self.count += 1
        self.p90 += pinball(tokens, 0.9, forecast.p90_tokens)
        self.median += pinball(tokens, 0.5, forecast.mean_tokens)
        self.below += tokens <= forecast.p90_tokens
        self.octave += abs(math.log2(max(forecast.mean_tokens, 1.0) / tokens)) <= 1.0
        # One that is in flight for as many iterations as it has tokens is met that often.
        self.residual += tokens * forecast.residual_tokens
        self.residual_truth += tokens * 0.5 * tokens

    def row(self, spent_us: float) -> str:
        n = self.count
        return (
            f"{self.p90 / n:12.1f}{self.median / n:12.1f}{self.below / n:12.3f}"
            f"{self.octave / n:12.3f}{self.residual / self.residual_truth - 1.0:+12.2f}"
            f"{spent_us:12.1f}"
        )


def score(predictor: LengthPredictor, trace: Trace) -> tuple[Score, float]:
    """Forecast the whole trace; also CPU microseconds a request."""
    result, unfinished, spent = Score(), deque[Outcome](), 0.0
    for i in range(len(trace)):
        request, tokens = request_of(trace, i), trace.output_tokens[i]
        begun = time.process_time()
        forecast = predictor.forecast(request)
        if len(unfinished) >= LAG:
            predictor.observe(unfinished.popleft())
        spent += time.process_time() - begun
        unfinished.append(outcome_of(request, tokens))
        if i >= SKIP:
            result.add(forecast, tokens)
    return result, spent / len(trace) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--predictors", default=",".join(PREDICTORS))
    names = parser.parse_args().predictors.split(",")
    for source, (file, stand_in) in SOURCES.items():
        path = TRACES / file
        trace, _ = build_trace(TraceSpec(str(path) if path.is_file() else stand_in), 0)
        print(
            f"{source:18s}{'pinball p90':>12s}{'pinball p50':>12s}{'below p90':>12s}"
            f"{'octave':>12s}{'in flight':>12s}{'us':>12s}   ({len(trace)} requests)"
        )
        for name in names:
            result, spent_us = score(PREDICTORS[name](trace), trace)
            print(f"  {name:16s}{result.row(spent_us)}")


if __name__ == "__main__":
    main()
