"""Workloads, fleets and loads. Nobody's policy was tuned to a single one of them.

A seed is another window of the trace (or another draw of what is drawn), another error of the
belief about each backend, other limits on lengths and other tie-breaks. All policies see the same.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.policies import held_out, slo_mix
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
    """A trace file of ``../shared`` (or the built-in that stands in for it).

    ``load_factor`` scales the loads: the long prompts of Mooncake fit some backends only, so its
    fleets saturate at about a third of the fluid capacity.
    """

    file: str
    stand_in: str
    start_s: float = 0.0
    load_factor: float = 1.0

    def source(self) -> str:
        path = SHARED / "data" / "traces" / self.file
        return str(path) if path.is_file() else self.stand_in


RECORDED: dict[str, Workload] = {
    "azure-conv": Workload("azure2023_conv.csv", "azure-conv-like", 600.0),
    "azure-code": Workload("azure2023_code.csv", "azure-code-like", 600.0),
    "mooncake-prefix": Workload("mooncake_synthetic.jsonl", "chat-prefix-like", 0.0, 0.33),
}
SESSIONS, SLO_MIX = held_out.SESSIONS, slo_mix.NAME
WORKLOADS = (*RECORDED, SESSIONS, SLO_MIX)
"""Of Mooncake's long prompts a quarter was seen before and the caches of these cards hold a tenth
of that; of the sessions' prompts four fifths, and they fit."""
LOADS = (0.5, 0.75, 0.9)
MIXED = ("a100-heavy", "balanced", "t4-heavy")
LARGE = "large"
LARGE_TIMES = 2
"""A fleet of 64 needs more requests to fill at all."""


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
    """Every workload on every fleet at every load; one load where the fleet is large."""
    return [
        Scenario(w, f, load, requests * (LARGE_TIMES if f == LARGE else 1))
        for w in workloads
        for f in fleets
        for load in (LOADS if f != LARGE else LOADS[1:2])
    ]


def held_out_scenarios(requests: int) -> list[Scenario]:
    """The set that nothing was tuned on."""
    return [Scenario(*names, requests) for names in held_out.SCENARIOS]


def config_of(
    fleet: str, policy: str, params: dict[str, float] | None = None, *, classes: bool = False
) -> MotleyConfig:
    """The fleet, with a queue that outlasts any burst, so that no policy can drop its tail.

    With ``classes`` that queue is in order of service class, and turns away who cannot be served
    in time.
    """
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
            "admission": {"enabled": classes},
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


def trace_of(scenario: Scenario, config: MotleyConfig, seed: int) -> tuple[Trace, float]:
    """The trace at the scenario's load, and the factor its times were divided by."""
    name, requests = scenario.workload, scenario.requests
    if name in RECORDED:
        plain = _window(RECORDED[name], requests, seed)
    elif name == SLO_MIX:
        parts = [
            _window(RECORDED[part.source], part.of(requests), seed + 1_000 * k)
            for k, part in enumerate(slo_mix.PARTS)
        ]
        plain = slo_mix.merged(parts, requests, seed)
    else:
        plain = held_out.draw(name, requests, seed)
    return at_load(plain, scenario, config, seed)


def at_load(
    plain: Trace, scenario: Scenario, config: MotleyConfig, seed: int
) -> tuple[Trace, float]:
    """A trace at the scenario's load, with limits, and the factor its times were divided by."""
    known = RECORDED.get(scenario.workload)
    factor = known.load_factor if known is not None else 1.0
    per_s = len(plain) / plain.span_s
    rate_scale = scenario.load * factor * capacity_per_s(config, plain) / per_s
    limits = np.random.default_rng(seed)
    return scale_rate(apply_max_tokens(plain, "ceiling", limits), rate_scale), rate_scale


def two_windows(name: str, requests: int, seed: int) -> tuple[Trace, Trace]:
    """Two parts of one workload that share no request, the earlier first; draws have no order."""
    if name in RECORDED:
        return _earlier_and_later(RECORDED[name], requests, seed)
    if name == SLO_MIX:
        pairs = [
            _earlier_and_later(RECORDED[part.source], part.of(requests), seed + 1_000 * k)
            for k, part in enumerate(slo_mix.PARTS)
        ]
        first, second = (list(parts) for parts in zip(*pairs, strict=True))
        return (
            slo_mix.merged(first, requests, seed + 500),
            slo_mix.merged(second, requests, seed),
        )
    return held_out.draw(name, requests, seed + 500), held_out.draw(name, requests, seed)


def _earlier_and_later(workload: Workload, requests: int, seed: int) -> tuple[Trace, Trace]:
    whole = _whole(workload)
    draw = np.random.default_rng([seed, 0xB0_07])
    second = int(draw.integers(requests, len(whole) - requests + 1))
    first = int(draw.integers(0, second - requests + 1))
    return _cut(whole, first, requests), _cut(whole, second, requests)


def _window(workload: Workload, requests: int, seed: int) -> Trace:
    """So many requests in a row, from a place in the trace that the seed says."""
    whole = _whole(workload)
    last = max(len(whole) - requests, 0)
    first = bisect_left(whole.arrival_s, whole.arrival_s[0] + workload.start_s)
    first = min(first, last)
    if seed:
        first = int(np.random.default_rng([seed, 0x57A7]).integers(first, last + 1))
    return _cut(whole, first, requests)


def _cut(whole: Trace, first: int, requests: int) -> Trace:
    window = Trace(whole.name)
    records = islice(whole.records(), first, first + requests)
    return window.extend(
        replace(r, arrival_s=r.arrival_s - whole.arrival_s[first]) for r in records
    )


@lru_cache(maxsize=8)
def _whole(workload: Workload) -> Trace:
    return build_trace(TraceSpec(workload.source(), max_tokens="none"), 0)[0]
