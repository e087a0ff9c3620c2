"""What each service class got: attainment, goodput, QoE, waits, and who was turned away."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from router.domain.qoe import qoe_under
from router.domain.slo import DEFAULT_CLASS
from simulator.figures import figures
from simulator.results import Floats, Latencies, RunResult, Status, slo_of

ClassFigures = dict[str, Any]
"""One entry of ``classes`` in the JSON; a document for the door, so its values are of any type."""


def qoe_column(result: RunResult, columns: Latencies) -> Floats:
    """Andes QoE of every request: 0 if it was not served, NaN if its class has no TTFT target."""
    values = np.full(len(result.records), math.nan)
    trace, outputs = result.trace, result.records.output_tokens
    codes = np.array(trace.slo_class.codes, dtype=np.int32)
    for code, name in enumerate(trace.slo_class.names):
        targets = slo_of(result.slos, name)
        for i in np.flatnonzero(codes == code).tolist():
            slo = targets.of_model(trace.model[i]) if targets.models else targets
            if not columns.completed[i]:
                values[i] = math.nan if slo.ttft_s is None else 0.0
                continue
            tpot = float(columns.tpot_s[i])
            score = qoe_under(
                slo,
                ttft_s=float(columns.ttft_s[i]),
                tpot_s=None if math.isnan(tpot) else tpot,
                output_tokens=outputs[i],
            )
            values[i] = math.nan if score is None else score
    return values


def class_figures(
    result: RunResult, columns: Latencies, span_s: float, qoe: Floats
) -> dict[str, ClassFigures]:
    """Figures by class, in the order of the configuration; classes without a request are left out.

    ``slo_attainment`` is over all that arrived: whoever was rejected, failed or left is a miss.
    ``waited_s`` is the time in the router, of those that were sent anywhere.
    """
    names = result.trace.slo_class.names
    codes = np.array(result.trace.slo_class.codes, dtype=np.int32)
    classes = [name or DEFAULT_CLASS for name in names]
    order = [*result.slos, *(name for name in classes if name not in result.slos)]
    figures: dict[str, ClassFigures] = {}
    for name in dict.fromkeys(order):
        mine = np.isin(codes, [code for code, known in enumerate(classes) if known == name])
        if mine.any():
            figures[name] = _figures(result, columns, mine, span_s, qoe)
    return figures


def _figures(
    result: RunResult, columns: Latencies, mine: Any, span_s: float, qoe: Floats
) -> ClassFigures:
    status = np.array(result.records.status, dtype=np.int8)[mine]
    waited = np.array(result.records.dispatched_s, dtype=np.float64) - result.trace.arrivals()
    met, arrived = int(columns.slo_met[mine].sum()), int(mine.sum())
    completed = int(columns.completed[mine].sum())
    scores = qoe[mine]
    known = scores[~np.isnan(scores)]
    return {
        "arrived": arrived,
        "completed": completed,
        "rejected": int((status == Status.REJECTED).sum()),
        "failed": int((status == Status.FAILED).sum()),
        "cancelled": int((status == Status.CANCELLED).sum()),
        "slo_attainment": met / arrived,
        "attainment_of_completed": met / completed if completed else None,
        "goodput_per_s": met / span_s,
        "offered_per_s": arrived / span_s,
        "qoe_mean": float(known.mean()) if len(known) else None,
        "ttft_s": figures(columns.ttft_s[mine]),
        "tpot_s": figures(columns.tpot_s[mine]),
        "e2e_s": figures(columns.e2e_s[mine]),
        "waited_s": figures(waited[mine]),
    }
