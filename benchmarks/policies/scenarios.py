"""Workloads, fleets and loads. Nobody's policy was tuned to a single one of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.policies import held_out
from router.config.load import MotleyConfig, load_config
from router.perf.hardware import Hardware
from simulator.traces.columns import Trace
from simulator.traces.transform import apply_max_tokens, scale_rate
from simulator.workload import TraceSpec, build_trace

MODEL = "llama-3.1-8b"
REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("MOTLEY_SHARED", REPOSITORY.parent / "shared"))

Kind = tuple[str, int, str, int]
"""GPU, how many engines, engine, cards per engine."""

FLEETS: dict[str, tuple[Kind, ...]] = {
    "a100-heavy": (("a100-80", 6, "vllm", 1), ("v100-32", 2, "vllm", 1), ("t4", 2, "vllm", 2)),
    "balanced": (
        ("a100-80", 2, "sglang", 1),
        ("a100-40", 1, "sglang", 1),
        ("v100-32", 2, "vllm", 1),
        ("t4", 4, "vllm", 2),
    ),
    "t4-heavy": (("a100-40", 1, "vllm", 1), ("v100-32", 2, "vllm", 1), ("t4", 8, "vllm", 2)),
    "l4-h100": (
        ("h100", 1, "vllm", 1),
        ("a100-40", 1, "sglang", 1),
        ("l4", 4, "vllm", 1),
        ("v100-32", 2, "vllm", 1),
    ),
    "large": (
        ("a100-80", 16, "vllm", 1),
        ("a100-40", 8, "sglang", 1),
        ("v100-32", 16, "vllm", 1),
        ("t4", 24, "vllm", 2),
    ),
}


@dataclass(frozen=True, slots=True)
class Workload:
    """A trace file of ``../shared`` (or the built-in that stands in for it) and its labels.

    ``load_factor`` scales the loads: the long prompts of Mooncake fit some backends only, so its
    fleets saturate at about a third of the fluid capacity.
    """

    file: str
    stand_in: str
    start_s: float = 0.0
    load_factor: float = 1.0
    classes: tuple[tuple[str, float], ...] = ()

    def source(self) -> str:
        path = SHARED / "data" / "traces" / self.file
        return str(path) if path.is_file() else self.stand_in


WORKLOADS: dict[str, Workload] = {
    "azure-conv": Workload("azure2023_conv.csv", "azure-conv-like", 600.0),
    "azure-code": Workload("azure2023_code.csv", "azure-code-like", 600.0),
    "mooncake-prefix": Workload("mooncake_synthetic.jsonl", "chat-prefix-like", 0.0, 0.33),
    "slo-mix": Workload(
        "azure2023_conv.csv",
        "azure-conv-like",
        600.0,
        1.0,
        (("interactive", 3.0), ("throughput", 1.0), ("bulk", 1.0)),
    ),
}
LOADS = (0.5, 0.75, 0.9)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One workload on one fleet at one share of its capacity."""

    workload: str
    fleet: str
    load: float
    requests: int

    @property
    def label(self) -> str:
        return f"{self.workload} / {self.fleet} / {self.load:g}"


def scenarios(workloads: Sequence[str], fleets: Sequence[str], requests: int) -> list[Scenario]:
    """Every workload on every fleet at every load."""
    return [Scenario(w, f, load, requests) for w in workloads for f in fleets for load in LOADS]


def held_out_scenarios(requests: int) -> list[Scenario]:
    """The set that nothing was tuned on."""
    return [Scenario(*names, requests) for names in held_out.SCENARIOS]


def config_of(fleet: str, policy: str, params: dict[str, float] | None = None) -> MotleyConfig:
    """The fleet, with a queue that outlasts any burst, so that no policy can drop its tail."""
    model = held_out.MODELS.get(fleet, MODEL)
    entries: list[dict[str, Any]] = [
        {"gpu": gpu, "count": count, "engine": engine, "tensor_parallel": cards, "model": model}
        for gpu, count, engine, cards in (FLEETS | held_out.FLEETS)[fleet]
    ]
    return load_config(
        {
            "backends": entries,
            "policy": {"name": policy, "params": params or {}},
            "reliability": {"queue_timeout_s": 86_400, "queue_size": 1_000_000},
        }
    )


def capacity_per_s(config: MotleyConfig, trace: Trace) -> float:
    """Requests per second at which the fleet saturates in the fluid limit.

    Each engine works at the batch that fills its KV cache, at most 64, on mean requests; what the
    prefix cache may save is not counted.
    """
    prompt = sum(trace.input_tokens) / len(trace)
    output = sum(trace.output_tokens) / len(trace)
    hardware = Hardware()
    total = 0.0
    for spec in config.fleet.backends:
        model = hardware.iteration_model(spec)
        held = prompt + output / 2
        batch = max(1, min(64, int(hardware.kv_capacity_tokens(spec) / held)))
        decode_s = model.iteration_s(0, batch, batch * held) / batch
        chunk = min(2048, int(prompt) + 1)
        prefill_s = model.iteration_s(chunk, 0, 0.0, chunk * prompt / 2) / chunk
        total += 1.0 / (prompt * prefill_s + output * decode_s)
    return total


def trace_of(
    scenario: Scenario, config: MotleyConfig, seed: int, workload: Workload | None = None
) -> tuple[Trace, float]:
    """The trace at the scenario's load, and the factor its times were divided by.

    ``workload`` stands for the one that the scenario names.
    """
    if workload is None:
        if scenario.workload not in WORKLOADS:
            return _drawn(scenario, config, seed)
        workload = WORKLOADS[scenario.workload]
    spec = TraceSpec(workload.source(), start_s=workload.start_s, classes=dict(workload.classes))
    plain, _ = build_trace(spec, seed)
    if len(plain) > scenario.requests:
        arrivals = plain.arrival_s
        duration_s = arrivals[scenario.requests] - arrivals[0]
    else:
        duration_s = plain.span_s
    wanted = scenario.load * workload.load_factor * capacity_per_s(config, plain)
    rate_scale = wanted / (len(plain) / plain.span_s)
    cut = TraceSpec(
        workload.source(),
        start_s=workload.start_s,
        duration_s=duration_s,
        classes=dict(workload.classes),
        rate_scale=rate_scale,
    )
    return build_trace(cut, seed)[0], rate_scale


def _drawn(scenario: Scenario, config: MotleyConfig, seed: int) -> tuple[Trace, float]:
    plain = held_out.draw(scenario.workload, scenario.requests, seed)
    factor = scenario.load * capacity_per_s(config, plain) * plain.span_s / len(plain)
    limited = apply_max_tokens(plain, "ceiling", np.random.default_rng(seed))
    return scale_rate(limited, factor), factor
