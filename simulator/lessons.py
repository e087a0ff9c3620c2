"""What a trace teaches a gateway that has not served it: how long answers are."""

from __future__ import annotations

from router.domain.errors import TraceError
from router.domain.outcome import Outcome
from router.perf.length import BucketLengthPredictor
from simulator.rows import Rows
from simulator.traces.columns import Trace
from telemetry.learned import Learned


def lengths_of(trace: Trace, model: str, unix_s: float) -> Learned:
    """Learn the lengths of all answers, in the order of their requests.

    Speeds cannot be learned from a trace: they are of cards.

    Args:
        trace: whose requests have been answered.
        model: of requests that name none; empty if all do.
        unix_s: wall clock.

    Raises:
        TraceError: a request names no model.
    """
    predictor, rows = BucketLengthPredictor(), Rows(trace, model)
    for i, tokens in enumerate(trace.output_tokens):
        request = rows.request(i, 0.0)
        if not request.model:
            raise TraceError(f"{trace.name} does not say which model answered: give --model NAME")
        predictor.observe(
            Outcome(
                request_id=request.request_id,
                model=request.model,
                slo_class=request.slo_class,
                tenant=request.tenant,
                backend="",
                status="completed",
                arrival_s=0.0,
                dispatched_s=0.0,
                first_token_s=None,
                finished_s=0.0,
                prompt_tokens=request.prompt_tokens,
                output_tokens=tokens,
                cached_tokens=None,
                max_tokens=request.max_tokens,
                prefilling_at_dispatch=0,
                decoding_at_dispatch=0,
                predicted_ttft_s=0.0,
                predicted_tpot_s=0.0,
                predicted_output_tokens=0.0,
            )
        )
    return Learned("trace", unix_s, predictor.cells())
