"""A validation as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from router.perf.measured import MeasuredCost
from simulator.live.fit import CostFit
from simulator.live.setup import EngineSetup
from simulator.live.validation import Validation
from simulator.results import RunResult, Status

Document = dict[str, Any]
"""Plain JSON values; a document for the door, so its values are of any type."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the engine before the replay.

    Attributes:
        setup: how it is set up.
        cost: its iteration.
        fit: where that comes from; ``None`` if it was read from a file.
    """

    setup: EngineSetup
    cost: MeasuredCost
    fit: CostFit | None


def document(known: Known, done: Validation) -> Document:
    """Everything that was measured and compared."""
    spec = known.setup.spec
    inputs, outputs = done.trace.lengths()
    return {
        "engine": {
            "name": spec.engine,
            "version": spec.engine_version,
            "model": spec.model,
            "gpu": spec.gpu,
            "tensor_parallel": spec.tensor_parallel,
            "settings": asdict(known.setup.config),
            "assumed": list(known.setup.assumed),
        },
        "cost": asdict(known.cost),
        "fit": _fit(known.fit),
        "workload": {
            "trace": done.trace.name,
            "requests": len(done.trace),
            "span_s": done.trace.span_s,
            "mean_input_tokens": float(inputs.mean()),
            "mean_output_tokens": float(outputs.mean()),
        },
        "live": [
            {**_counts(run.result), "late_p99_s": run.late_p99_s, "wall_s": run.result.wall_s}
            for run in done.live
        ],
        "twin": {**_counts(done.twin), "cpu_s": done.twin.cpu_s},
        "drift_percent": done.drift_percent,
        "rows": [asdict(row) for row in done.rows],
        "notes": list(done.notes),
    }


def _fit(fit: CostFit | None) -> Document | None:
    if fit is None:
        return None
    return {
        "intervals": {name: list(interval) for name, interval in fit.intervals.items()},
        "fitted": _errors(fit.fitted),
        "held_back": _errors(fit.held_back),
    }


def _errors(errors: Mapping[Any, Any]) -> Document:
    return {kind: asdict(found) for kind, found in errors.items()}


def _counts(result: RunResult) -> Document:
    return {
        "completed": result.count(Status.COMPLETED),
        "failed": result.count(Status.FAILED) + result.count(Status.REJECTED),
        "reasons": dict(sorted(result.reasons.items())),
        "preemptions": result.preemptions,
    }
