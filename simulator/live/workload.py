"""A trace made to fit a live engine: its lengths, its load, its duration.

Traces come from services that ran many large GPUs; what is validated may be one small engine. So
lengths and times are scaled, which keeps the shape of both, and what still does not fit the
engine's context is left out and counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from router.domain.errors import TraceError
from router.perf.roofline import IterationModel
from simulator.replica.config import ReplicaConfig
from simulator.traces.columns import Trace
from simulator.traces.read import Window, cut
from simulator.traces.transform import scale_rate


@dataclass(frozen=True, slots=True)
class Scaling:
    """How a trace is made to fit.

    Attributes:
        minutes: of replay.
        load: offered work as a share of what the engine can do with a full batch; ignored if
            ``rate_scale`` is given.
        rate_scale: divides all times.
        length_scale: multiplies all lengths.
    """

    minutes: float = 2.0
    load: float = 0.6
    rate_scale: float | None = None
    length_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("minutes", "load", "length_scale"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise TraceError(f"{name} must be a number above 0, not {value:g}")


def fit_trace(
    trace: Trace, scaling: Scaling, config: ReplicaConfig, model: IterationModel
) -> tuple[Trace, list[str]]:
    """Scale a trace to an engine; every answer's limit is its length, as it will be asked for.

    Returns:
        The trace, and sentences on what was done to it.

    Raises:
        TraceError: nothing is left, or lengths cannot be scaled because prefixes are shared.
    """
    fitting = _fitting(trace, scaling.length_scale, config.longest_job_tokens)
    left_out = len(trace) - len(fitting)
    if not len(fitting):
        raise TraceError(
            f"no request of {trace.name} fits the engine's {config.longest_job_tokens:,} tokens; "
            "shorten them with --scale-lengths"
        )
    rate_scale = scaling.rate_scale
    if rate_scale is None:
        rate_scale = scaling.load * capacity_per_s(fitting, config, model) / offered_per_s(fitting)
    window = Window(0.0, scaling.minutes * 60.0)
    replayed = Trace(trace.name).extend(cut(scale_rate(fitting, rate_scale).records(), window))
    if not len(replayed):
        raise TraceError(
            f"no request arrives in {scaling.minutes:g} minutes; replay more --minutes"
        )
    notes = [f"times divided by {rate_scale:.3g}, lengths multiplied by {scaling.length_scale:g}"]
    if left_out:
        notes.append(
            f"{left_out:,} of {len(trace):,} requests of the trace do not fit the engine's "
            f"{config.longest_job_tokens:,} tokens and were left out"
        )
    return replayed, notes


def capacity_per_s(trace: Trace, config: ReplicaConfig, model: IterationModel) -> float:
    """Requests per second that keep the engine's batch full, at the lengths of a trace."""
    inputs, outputs = trace.lengths()
    context = float(np.mean(inputs + outputs / 2))
    batch = max(1, min(config.max_num_seqs, int(config.kv_capacity_tokens / context)))
    iteration_s = model.iteration_s(0, batch, batch * context)
    prefill_s = [
        model.iteration_s(n, batch, batch * context, n * n / 2) - iteration_s
        for n in inputs.tolist()
    ]
    return float(1.0 / np.mean(np.array(prefill_s) + outputs * iteration_s / batch))


def offered_per_s(trace: Trace) -> float:
    """Mean arrival rate.

    Raises:
        TraceError: all requests arrive at once, so there is no rate to scale.
    """
    if not (trace.timed and trace.span_s > 0):
        raise TraceError(f"{trace.name} has no arrival times that could be scaled")
    return len(trace) / trace.span_s


def _fitting(trace: Trace, length_scale: float, longest_tokens: int) -> Trace:
    if length_scale != 1.0 and trace.has_prefixes:
        raise TraceError(
            f"{trace.name} shares prefixes, whose lengths cannot be scaled; leave out "
            "--scale-lengths"
        )
    fitting = Trace(trace.name)
    fitting.timed = trace.timed
    silence_s = trace.arrival_s[0] if len(trace) else 0.0  # nobody waits for it twice
    for record in trace.records():
        tokens = max(1, round(record.input_tokens * length_scale))
        answer = max(1, round(record.output_tokens * length_scale))
        if tokens + answer <= longest_tokens:
            fitting.append(
                replace(
                    record,
                    arrival_s=record.arrival_s - silence_s,
                    input_tokens=tokens,
                    output_tokens=answer,
                    max_tokens=answer,
                    model="",
                )
            )
    return fitting
