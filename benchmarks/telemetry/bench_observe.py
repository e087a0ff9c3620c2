"""What the observers cost per finished request, and what one idle backend weighs."""

from __future__ import annotations

import gc
import random
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from router.config.load import load_config
from router.domain.outcome import Outcome
from router.domain.request import Request
from router.domain.state import LinearCost
from router.gateway.app import build_app
from telemetry.accuracy import Accuracy
from telemetry.calibration import Calibration
from telemetry.drift import DriftDetector
from telemetry.feedback import Feedback
from telemetry.metering import Meter, Metered
from telemetry.metrics import GatewayMetrics
from telemetry.power import PowerPrior
from telemetry.record_rows import RowMaker
from telemetry.recorder import Recorder
from telemetry.slo_window import SloWindow
from tests.telemetry.tiny_engine import poisson, serve

A100 = LinearCost(step_s=0.0105, prefill_s=8e-5, seq_s=2e-5, context_s=7.6e-8)
REQUESTS = 3000


def main() -> None:
    for per_s in (2.0, 10.0):
        jobs = poisson(random.Random(1), per_s, REQUESTS / per_s)
        outcomes = list(serve(jobs, A100))
        print(f"{per_s:g} requests/s on one backend: us of CPU per outcome")
        for name, make in OBSERVERS.items():
            print(f"  {name:34} {cost_us(make(), outcomes):6.1f}")
    print(f"memory of one idle backend: {idle_kib():.1f} KiB in a whole gateway, sockets apart")


def cost_us(observe: Callable[[Outcome], None], outcomes: list[Outcome]) -> float:
    start = time.process_time()
    for outcome in outcomes:
        observe(outcome)
    return (time.process_time() - start) / len(outcomes) * 1e6


def _recorder() -> Callable[[Outcome], None]:
    folder = Path(tempfile.mkdtemp(prefix="motley-bench-"))
    rows = RowMaker(salt=b"s", policy="motley", epoch_s=0.0)
    recorder = Recorder(folder, rows)
    request = Request("r", "m", 0.0, 100, tenant="t", session="s")
    return lambda outcome: recorder.finished(request, outcome)


def _meter() -> Callable[[Outcome], None]:
    meter = Meter(lambda _: 1.0)
    meter.add("b", Metered("m", "a100-80", 4.0, A100, PowerPrior(55.0, 400.0)), 0.0)
    return meter.observe


OBSERVERS: dict[str, Callable[[], Callable[[Outcome], None]]] = {
    "metrics": lambda: GatewayMetrics(policy="motley", version="0").observe,
    "SLO window": lambda: SloWindow({}).observe,
    "predicted against actual": lambda: Accuracy().observe,
    "meter": _meter,
    "recorder (disk work apart)": _recorder,
    "feedback": lambda: Feedback({"b": A100}).observe,
    "feedback, calibration and drift": lambda: (
        Feedback({"b": A100}, calibration=Calibration(), drift=DriftDetector()).observe
    ),
}


def idle_kib(backends: int = 500) -> float:
    """What a gateway keeps of a backend that has served nothing yet: state, learners, scraper."""
    fleet = {
        "backends": [
            {
                "gpu": "a100-80",
                "model": "llama-3.1-8b",
                "count": backends,
                "url": [f"http://127.0.0.1:{10_000 + n}" for n in range(backends)],
            }
        ]
    }
    config = load_config(fleet)
    build_app(load_config({"backends": [{**fleet["backends"][0], "count": 1, "url": "http://e"}]}))
    gc.collect()
    tracemalloc.start()
    kept = build_app(config)
    kept.engine.dispatcher.state.candidates("llama-3.1-8b", 0.0)
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / backends / 1024


if __name__ == "__main__":
    main()
