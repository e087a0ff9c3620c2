"""Scenarios that nobody tuned to: other arrivals, lengths, models, fleets and loads.

Drawn, not recorded, so they need no file: gamma, on-off and diurnal arrivals; log-normal and
Pareto lengths, long contexts, two kinds of request in one stream, sessions that share prefixes;
models from 8B to 70B; fleets without the usual trio, of one kind only, of two cards, of many slow
ones; from a load at which nobody need wait to one that nobody can bear. Motley's own parameters
were chosen on ``scenarios.py`` and other draws; this set is only ever reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from simulator import arrivals
from simulator.synthetic import builtin_trace
from simulator.traces.columns import Trace
from simulator.traces.record import TraceRecord

Random = np.random.Generator
Sizes = Callable[[Random], tuple[int, int]]
Kind = tuple[str, int, str, int]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A synthetic workload: when requests come, at one a second, and how long they are."""

    gaps: Callable[[Random], Iterator[float]]
    sizes: Sizes

    def trace(self, name: str, requests: int, seed: int) -> Trace:
        rng = np.random.default_rng([seed, 0x0E1D])
        trace = Trace(name)
        for at in islice(self.gaps(rng), requests):
            trace.append(TraceRecord(at, *self.sizes(rng)))
        return trace


def _spread(median: float, sigma: float, most: int, rng: Random) -> int:
    return int(min(max(median * math.exp(sigma * rng.standard_normal()), 1.0), most))


def _pareto(least: float, alpha: float, most: int, rng: Random) -> int:
    return int(min(least * (1.0 + rng.pareto(alpha)), most))


def _summaries(rng: Random) -> tuple[int, int]:
    return _spread(4_500.0, 0.4, 12_000, rng), _spread(180.0, 0.6, 1_000, rng)


def _heavy(rng: Random) -> tuple[int, int]:
    return _spread(450.0, 1.1, 9_000, rng), _pareto(60.0, 1.5, 4_000, rng)


def _thinking(rng: Random) -> tuple[int, int]:
    return _spread(400.0, 0.8, 6_000, rng), _spread(900.0, 0.8, 6_000, rng)


def _two_kinds(rng: Random) -> tuple[int, int]:
    if rng.random() < 0.25:
        return _spread(7_000.0, 0.3, 14_000, rng), _spread(30.0, 0.8, 300, rng)
    return _spread(150.0, 0.9, 3_000, rng), _spread(280.0, 0.8, 2_500, rng)


DRAWN: dict[str, Drawn] = {
    "gamma-heavy": Drawn(lambda rng: arrivals.gamma(1.0, 2.5, rng), _heavy),
    "on-off-summaries": Drawn(lambda rng: arrivals.on_off(1.0, 15.0, 20.0, rng), _summaries),
    "diurnal-thinking": Drawn(lambda rng: arrivals.diurnal(1.0, 0.5, 600.0, rng), _thinking),
    "two-kinds": Drawn(lambda rng: arrivals.gamma(1.0, 1.4, rng), _two_kinds),
    "poisson-heavy": Drawn(lambda rng: arrivals.poisson(1.0, rng), _heavy),
}
SESSIONS = "sessions"
"""The built-in multi-turn chats behind shared system prompts."""

FLEETS: dict[str, tuple[Kind, ...]] = {
    "h100-l4": (("h100", 1, "sglang", 1), ("l4", 6, "vllm", 1)),
    "a100-v100": (("a100-40", 2, "sglang", 1), ("v100-32", 5, "vllm", 1)),
    "many-t4": (("a100-80", 2, "vllm", 1), ("t4", 12, "vllm", 2)),
    "two": (("a100-40", 1, "vllm", 1), ("l4", 1, "sglang", 1)),
    "one": (("a100-40", 1, "vllm", 1),),
    "alike": (("a100-40", 6, "vllm", 1),),
    "engines": (("a100-80", 2, "sglang", 1), ("a100-80", 2, "vllm", 1), ("l4", 4, "sglang", 1)),
    "13b": (("a100-80", 2, "vllm", 1), ("a40", 3, "vllm", 1), ("v100-32", 2, "vllm", 2)),
    "70b": (("h100", 1, "vllm", 4), ("a100-80", 2, "sglang", 4), ("a40", 2, "vllm", 8)),
}
MODELS = {"13b": "llama-2-13b", "70b": "llama-3.1-70b"}

SCENARIOS: tuple[tuple[str, str, float], ...] = (
    ("gamma-heavy", "h100-l4", 0.6),
    ("gamma-heavy", "two", 0.5),
    ("on-off-summaries", "a100-v100", 0.5),
    ("on-off-summaries", "70b", 0.5),
    ("diurnal-thinking", "many-t4", 0.7),
    ("diurnal-thinking", "13b", 0.6),
    ("two-kinds", "engines", 0.7),
    ("two-kinds", "many-t4", 0.8),
    ("poisson-heavy", "a100-v100", 0.3),
    ("poisson-heavy", "engines", 1.1),
    ("poisson-heavy", "alike", 0.8),
    ("poisson-heavy", "one", 0.7),
    (SESSIONS, "h100-l4", 0.7),
    (SESSIONS, "a100-v100", 0.8),
)


def draw(workload: str, requests: int, seed: int) -> Trace:
    """One workload, at about one request a second."""
    if workload == SESSIONS:
        return builtin_trace("chat-prefix-like", duration_s=max(60.0, requests / 4.0), seed=seed)
    return DRAWN[workload].trace(workload, requests, seed)
