"""Puts the learners together for a fleet: what ``serve`` and the simulator start from."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from router.domain.fleet import BackendSpec
from router.domain.state import LinearCost
from router.perf.engines import EngineDefaults
from telemetry.calibration import Calibration
from telemetry.drift import Drift, DriftDetector
from telemetry.feedback import Feedback
from telemetry.sightings import EngineShape
from telemetry.speeds import card_of

CostOf = Callable[[BackendSpec], LinearCost]
DefaultsOf = Callable[[BackendSpec], EngineDefaults]


def shape_of(defaults: EngineDefaults) -> EngineShape:
    """How an engine with these settings schedules: only vLLM V1 computes prompts beside decodes."""
    mixed = defaults.scheduler == "vllm-v1" and defaults.chunked_prefill
    return EngineShape(defaults.max_num_batched_tokens, mixed, defaults.schedule_ahead)


def make_feedback(
    backends: Iterable[BackendSpec],
    belief: CostOf,
    defaults: DefaultsOf,
    *,
    calibrate: bool = True,
    on_drift: Callable[[Drift], None] | None = None,
    cached_share_of: Callable[[str], float | None] | None = None,
) -> Feedback:
    """An observer that starts from ``belief`` and learns multipliers, coefficients and drift.

    Args:
        backends: the fleet.
        belief: prior cost of a backend; it must be the one that corrections are applied to.
        defaults: the settings of a backend's engine.
        calibrate: whether to learn the coefficients too; multipliers need no more than half the
            time.
        on_drift: told of each sudden change of speed.
        cached_share_of: scraped prefix-cache hit ratio of a backend, where it is known.
    """
    specs = list(backends)
    return Feedback(
        {spec.name: belief(spec) for spec in specs},
        {spec.name: shape_of(defaults(spec)) for spec in specs},
        groups={spec.name: spec.group for spec in specs},
        cards={spec.name: card_of(spec) for spec in specs},
        calibration=Calibration() if calibrate else None,
        drift=DriftDetector(),
        on_drift=on_drift,
        cached_share_of=cached_share_of,
    )
