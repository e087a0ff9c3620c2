"""What is asked of a mixed fleet: which arrivals, which beliefs; and how a run is written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import yaml

from benchmarks.gpu.cards import Card, Engines
from benchmarks.gpu.drive import Asked
from router.perf.measured import MeasuredCost
from simulator.bench.answer import Sample

MODEL = "llama-3.1-8b"
BELIEVED = {"h100": 1.35, "l40s": 0.75, "l4": 0.6}
"""What the gateway is told that each kind of card takes, over what it really takes: the fast one
is thought slower than it is, and the slow ones faster."""
ALONE = "fast-alone"
"""No policy: the fast card without the others."""
TRUE = ("nginx-least-conn",)
"""Policies that get what was measured instead of the belief."""
GATEWAY_PORT = 18_900
GIVE_UP_S = 15.0


@dataclass(frozen=True, slots=True)
class Part:
    """Arrivals at ``load`` times the fleet's capacity for ``seconds``, with each policy."""

    load: float
    seconds: float
    policies: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Part:
        """From "0.6x45:motley,round-robin"."""
        head, _, policies = text.partition(":")
        load, _, seconds = head.partition("x")
        return cls(float(load), float(seconds), tuple(policies.split(",")))


@dataclass(frozen=True, slots=True)
class Slice:
    """Part of a trace, bent.

    Attributes:
        first: its first request.
        length_scale: of prompts and answers.
        most_prompt, most_output: longer ones are cut.
    """

    first: int
    length_scale: float
    most_prompt: int
    most_output: int

    def asked(self, trace: Any, count: int, per_s: float) -> list[Asked]:
        """``count`` requests, at ``per_s`` on average."""
        rows = range(self.first, self.first + count)
        begin_s = trace.arrival_s[self.first]
        faster = count / per_s / (trace.arrival_s[self.first + count] - begin_s)
        return [
            Asked((trace.arrival_s[k] - begin_s) * faster, *self.lengths(trace, k)) for k in rows
        ]

    def lengths(self, trace: Any, row: int) -> tuple[int, int]:
        prompt = round(self.length_scale * trace.input_tokens[row])
        output = round(self.length_scale * trace.output_tokens[row])
        return min(self.most_prompt, max(16, prompt)), min(self.most_output, max(2, output))


def fleet_file(cards: Sequence[Card], engines: Engines, costs: dict[str, MeasuredCost]) -> str:
    """The gateway's YAML."""
    entries = [
        {
            "name": card.name,
            "gpu": card.gpu,
            "engine": "vllm",
            "model": MODEL,
            "url": engines.url(number),
            "max_num_seqs": card.max_seqs,
            "max_model_len": engines.seat_tokens,
            "max_num_batched_tokens": engines.chunk_tokens,
            "kv_capacity_tokens": card.max_seqs * engines.seat_tokens,
        }
        for number, card in enumerate(cards)
    ]
    told = [
        {"gpu": gpu, "engine": "vllm", "model": MODEL}
        | {name: float(f"{value:.5g}") for name, value in asdict(cost).items()}
        for gpu, cost in costs.items()
    ]
    document = {"backends": entries, "overrides": told, "server": {"port": GATEWAY_PORT}}
    return yaml.safe_dump(document, sort_keys=False)


def summary(
    policy: str, load: float, samples: Sequence[Sample], end_s: float, names: Sequence[str]
) -> dict[str, Any]:
    """A run's samples as columns, in the order of sending.

    Milliseconds; an answer that was left is as old as it was then (``ended`` 0), and its first
    token, if none came, too. ``tpot_ms`` is 0 where there is none.
    """
    ages = [end_s - s.sent_s for s in samples]
    e2e = [s.e2e_s if s.ok else age for s, age in zip(samples, ages, strict=True)]
    ttft = [age if s.ttft_s is None else s.ttft_s for s, age in zip(samples, ages, strict=True)]
    return {
        "policy": policy,
        "load": load,
        "ttft_ms": [round(1e3 * t, 1) for t in ttft],
        "e2e_ms": [round(1e3 * (t or 0.0)) for t in e2e],
        "tpot_ms": [round(1e3 * (s.tpot_s or 0.0) if s.ok else 0.0, 2) for s in samples],
        "ended": "".join("01"[s.ok] for s in samples),
        "backend": "".join(str(names.index(s.backend)) if s.backend else "-" for s in samples),
        "failed": sorted({s.error for s in samples if s.error}),
        "late_ms": round(1e3 * max(s.sent_s - s.due_s for s in samples), 1),
        "prompt_tokens": sum(s.input_tokens for s in samples if s.ok),
        "output_tokens": sum(s.output_tokens for s in samples if s.ok),
    }
