"""A million requests leave memory flat; run by `make test-full`."""

from __future__ import annotations

import dataclasses
import gc
import random
import tracemalloc
from pathlib import Path

import pytest

from router.domain.request import Request
from router.domain.state import LinearCost
from telemetry.accuracy import Accuracy
from telemetry.calibration import Calibration
from telemetry.drift import DriftDetector
from telemetry.feedback import Feedback
from telemetry.metering import Meter, Metered
from telemetry.metrics import GatewayMetrics
from telemetry.power import PowerPrior
from telemetry.record_rows import RowMaker
from telemetry.recorder import Recorder, RecorderLimits
from telemetry.slo_window import SloWindow
from tests.telemetry.tiny_engine import poisson, serve

A100 = LinearCost(step_s=0.0105, prefill_s=8e-5, seq_s=2e-5, context_s=7.6e-8)
REQUESTS, ROUND = 1_000_000, 10_000


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_a_million_requests_leave_memory_flat(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow.parquet")  # imported beforehand: it is no growth
    outcomes = list(serve(poisson(random.Random(1), 10.0, ROUND / 10.0), A100))
    round_s = outcomes[-1].finished_s + 1.0
    recorder = Recorder(
        tmp_path,
        RowMaker(salt=b"s", policy="motley", epoch_s=0.0),
        RecorderLimits(total_bytes=4_000_000),
    )
    meter = Meter(lambda _: 1.0)
    meter.add("b", Metered("m", "a100-80", 4.0, A100, PowerPrior(55.0, 400.0)), 0.0)
    metrics = GatewayMetrics(policy="motley", version="0")
    observers = [
        Feedback({"b": A100}, calibration=Calibration(), drift=DriftDetector()),
        metrics,
        SloWindow({}),
        Accuracy(),
        meter,
    ]
    rng, request = random.Random(2), Request("r", "m", 0.0, 100)
    sizes = []
    tracemalloc.start()
    for n in range(REQUESTS // len(outcomes)):
        for outcome in outcomes:
            at = n * round_s
            moved = dataclasses.replace(
                outcome,
                arrival_s=outcome.arrival_s + at,
                dispatched_s=outcome.dispatched_s + at,
                first_token_s=(outcome.first_token_s or 0.0) + at,
                finished_s=outcome.finished_s + at,
                tenant=f"t{rng.randrange(10**9)}",
                model=f"m{rng.randrange(10**9)}",
            )
            for observer in observers:
                observer.observe(moved)
            metrics.ended(moved.model, "b", (0.01, 0.02), f"reason-{rng.randrange(10**9)}")
            recorder.finished(request, moved)
            meter.sample(moved.finished_s)
        recorder.flush((n + 1) * round_s)
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    recorder.close(0.0)
    # The first tenth fills what is bounded; after that nothing may grow.
    assert max(sizes[len(sizes) // 10 :]) < sizes[len(sizes) // 10] + 1_000_000
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 8_000_000
