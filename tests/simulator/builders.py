"""Small fleets, traces and replicas for the tests of the replay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from router.config.load import MotleyConfig, load_config
from router.domain.fleet import BackendSpec
from router.domain.protocols import PerfModel
from router.domain.state import LinearCost
from simulator.options import ReplayOptions
from simulator.replica.build import make_replica
from simulator.replica.config import ReplicaConfig
from simulator.replica.interface import Replica
from simulator.run import ReplicaOf
from simulator.traces.columns import Trace
from simulator.traces.record import TraceRecord

MODEL = "llama-3.1-8b"
CERTAIN = ReplayOptions(model_error=0.0, feedback=False, telemetry_delay_s=0.0)
"""No error, no learning: for tests whose numbers come from theory."""

MIXED = ({"gpu": "a100-80", "count": 1}, {"gpu": "v100-32", "count": 1}, {"gpu": "l4", "count": 1})


def fleet_config(
    entries: Iterable[Mapping[str, Any]] = MIXED, **sections: Mapping[str, Any]
) -> MotleyConfig:
    """A configuration; every entry serves one 8B model on vLLM unless it says otherwise."""
    backends = [{"engine": "vllm", "model": MODEL, **entry} for entry in entries]
    return load_config({"backends": backends, **sections})


def make_trace(rows: Iterable[tuple[float, int, int]], **labels: Any) -> Trace:
    """A trace of (arrival, input tokens, output tokens)."""
    return Trace("test").extend(TraceRecord(t, i, o, **labels) for t, i, o in rows)


@dataclass(frozen=True)
class PlainModel:
    """An iteration takes ``step_s`` plus ``seq_s`` per decoding sequence; prompts are free.

    With one sequence at a time the engine is a server whose service time is proportional to
    the output length; with ``step_s`` = 0 and many sequences it shares its processor equally.
    """

    step_s: float = 0.0
    seq_s: float = 0.0
    context_s: float = 0.0

    def iteration_s(
        self,
        prefill_tokens: int,
        decode_seqs: int,
        context_tokens: float,
        prefill_pairs: float = 0.0,
    ) -> float:
        if not decode_seqs and not prefill_tokens:
            return 0.0
        return self.base_s(prefill_tokens, decode_seqs)

    def base_s(self, prefill_tokens: int, decode_seqs: int) -> float:
        return self.step_s + self.seq_s * (decode_seqs + (1 if prefill_tokens else 0))

    def linear(self) -> LinearCost:
        return LinearCost(self.step_s, 1e-9, self.seq_s, 0.0)


def plain_replicas(max_num_seqs: int) -> ReplicaOf:
    """Engines with room for so many sequences, and memory for everything."""

    def build(spec: BackendSpec, truth: PerfModel) -> Replica:
        config = ReplicaConfig(
            kv_capacity_tokens=50_000_000,
            max_context_tokens=1_000_000,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=100_000,
            prefix_caching=False,
        )
        return make_replica(config, truth)

    return build
