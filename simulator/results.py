"""What came of every request: parallel columns, about 60 bytes a request."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from router.domain.fleet import BackendSpec
from router.domain.slo import DEFAULT_CLASS, DEFAULT_SLOS, Slo
from simulator.traces.columns import Trace

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class Status(IntEnum):
    """How a request ended."""

    PENDING = 0
    COMPLETED = 1
    REJECTED = 2
    FAILED = 3
    CANCELLED = 4


class Records:
    """One row per request of the trace, filled in while it is replayed.

    Attributes:
        status: a ``Status``.
        backend: index of the last backend it was sent to; -1 if none.
        attempts: how often it was sent.
        dispatched_s, first_token_s, finished_s: on the replay's clock; NaN if it never came
            to that (I4).
        output_tokens: as served; an engine cuts an answer at its context limit.
        cached_tokens: prompt tokens found in the prefix cache.
    """

    def __init__(self, count: int) -> None:
        nothing = [math.nan] * count
        self.status = array("b", bytes(count))
        self.backend = array("h", [-1]) * count
        self.attempts = array("b", bytes(count))
        self.dispatched_s = array("d", nothing)
        self.first_token_s = array("d", nothing)
        self.finished_s = array("d", nothing)
        self.output_tokens = array("i", [0]) * count
        self.cached_tokens = array("i", [0]) * count

    def __len__(self) -> int:
        return len(self.status)

    def pending_on(self, backend: int) -> list[int]:
        """Requests last sent to this backend and not over."""
        status = np.array(self.status, dtype=np.int8)
        where = np.array(self.backend, dtype=np.int16)
        found: list[int] = np.flatnonzero((status == Status.PENDING) & (where == backend)).tolist()
        return found


@dataclass(slots=True)
class Timeline:
    """Samples of every backend at equal steps of time.

    Attributes:
        at_s: when.
        running, waiting, kv_usage: one list per sample, in the order of the backends.
    """

    at_s: list[float] = field(default_factory=list)
    running: list[list[int]] = field(default_factory=list)
    waiting: list[list[int]] = field(default_factory=list)
    kv_usage: list[list[float]] = field(default_factory=list)


@dataclass(slots=True)
class RunResult:
    """One policy on one trace on one fleet with one seed.

    Attributes:
        policy, fleet_name, rate_scale, seed: what was run.
        trace: what was replayed.
        backends: in the order of ``Records.backend``.
        records: what came of each request.
        slos: latency targets by class.
        reasons: why requests were rejected or failed, and how many.
        timeline: samples for the plots.
        preemptions: over all engines.
        wall_s, cpu_s: what the replay cost.
        notes: what a reader must know to judge the run (an oracle, a lost backend).
        options: of the replay.
    """

    policy: str
    fleet_name: str
    rate_scale: float
    seed: int
    trace: Trace
    backends: tuple[BackendSpec, ...]
    records: Records
    slos: dict[str, Slo]
    reasons: Counter[str] = field(default_factory=Counter)
    timeline: Timeline = field(default_factory=Timeline)
    preemptions: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    notes: list[str] = field(default_factory=list)
    options: dict[str, object] = field(default_factory=dict)

    def count(self, status: Status) -> int:
        """Requests that ended so."""
        return self.records.status.count(status)


@dataclass(frozen=True, slots=True)
class Latencies:
    """Latency columns of one run, NaN where there is none.

    Attributes:
        completed: which requests were served to the end.
        ttft_s: arrival at the gateway to first token.
        tpot_s: (E2E - TTFT) / (output tokens - 1); NaN below two tokens.
        e2e_s: arrival to last token.
        slo_met: completed, and every target of its class kept. All else is a miss.
    """

    completed: Bools
    ttft_s: Floats
    tpot_s: Floats
    e2e_s: Floats
    slo_met: Bools


def latencies(result: RunResult) -> Latencies:
    """Compute the latency columns of a run."""
    records = result.records
    completed = np.array(records.status, dtype=np.int8) == Status.COMPLETED
    arrival = result.trace.arrivals()
    first = np.where(completed, np.array(records.first_token_s, dtype=np.float64), np.nan)
    last = np.where(completed, np.array(records.finished_s, dtype=np.float64), np.nan)
    outputs = np.array(records.output_tokens, dtype=np.int64)
    gaps = np.where(outputs > 1, outputs - 1.0, np.nan)
    ttft, e2e, tpot = first - arrival, last - arrival, (last - first) / gaps
    return Latencies(completed, ttft, tpot, e2e, _slo_met(result, ttft, tpot, e2e) & completed)


def slo_of(slos: dict[str, Slo], name: str) -> Slo:
    """Targets of a class; the default class for requests that name none."""
    return slos.get(name or DEFAULT_CLASS) or DEFAULT_SLOS[DEFAULT_CLASS]


def _slo_met(result: RunResult, ttft: Floats, tpot: Floats, e2e: Floats) -> Bools:
    met = np.ones(len(ttft), dtype=np.bool_)
    labels = result.trace.slo_class
    codes = np.array(labels.codes, dtype=np.int32)
    for code, name in enumerate(labels.names):
        slo = slo_of(result.slos, name)
        kept = _kept(slo, ttft, tpot, e2e)
        for model, targets in slo.models.items():
            own = _asks_for(result.trace, model)
            kept = np.where(own, _kept(targets, ttft, tpot, e2e), kept)
        met &= kept | (codes != code)
    return met


def _kept(slo: Slo, ttft: Floats, tpot: Floats, e2e: Floats) -> Bools:
    kept = np.ones(len(ttft), dtype=np.bool_)
    for values, target in ((ttft, slo.ttft_s), (tpot, slo.tpot_s), (e2e, slo.e2e_s)):
        if target is not None:
            kept &= np.isnan(values) | (values <= target)
    return kept


def _asks_for(trace: Trace, model: str) -> Bools:
    codes = np.array(trace.model.codes, dtype=np.int32)
    asked: Bools = np.isin(codes, [c for c, name in enumerate(trace.model.names) if name == model])
    return asked
