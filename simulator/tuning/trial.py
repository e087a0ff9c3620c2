"""One set of weights, planned with and then simulated: what it costs and how long people wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from router.config.load import MotleyConfig
from router.domain.errors import PlanError, TraceError
from router.domain.fleet import Fleet
from router.perf.hardware import Hardware
from simulator.results import RunResult, Status
from simulator.run import run_policy
from simulator.summary import observed_s, summarize
from simulator.traces.columns import Trace
from solver.capacity import build_base
from solver.offers import bought
from solver.options import Limits, Weights
from solver.plan import plan_stock
from solver.service import service
from solver.settings import limits_of, tenant_group_of
from solver.stock import Candidate, stock_of
from solver.workload import Workload, build_workload

FEWEST = 50
"""Requests that a slice must hold for its tails to say anything."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a set of weights comes to on a trace.

    Attributes:
        weights: that differ from the defaults, by name.
        replicas: planned, by group.
        usd_per_hour: rent of the replicas.
        power_kw: drawn in the mean.
        ttft_p99_s, e2e_mean_s, e2e_p99_s: simulated.
        attainment: share of requests that met all their targets, simulated.
        waiting: mean requests in the system, simulated.
        planned_e2e_s: what the plan expected of the mean E2E.
    """

    weights: Mapping[str, float]
    replicas: Mapping[str, int]
    usd_per_hour: float
    power_kw: float
    ttft_p99_s: float
    e2e_mean_s: float
    e2e_p99_s: float
    attainment: float
    waiting: float
    planned_e2e_s: float


class Trials:
    """Measures weights and remembers placements that it simulated.

    Args:
        trace: what is planned for.
        replayed: what then arrives; by default the same.
        config: the fleet file: its cards are the stock.
        time_limit_s: for each plan.

    Raises:
        TraceError: too few requests.
        WorkloadError: the trace makes no demand.
    """

    def __init__(
        self,
        trace: Trace,
        config: MotleyConfig,
        *,
        replayed: Trace | None = None,
        time_limit_s: float = 5.0,
    ) -> None:
        self._trace, self._config = replayed or trace, config
        for one in (trace, self._trace):
            if len(one) < FEWEST:
                raise TraceError(
                    f"holds {len(one)} requests; at least {FEWEST} are needed to judge weights by",
                    path=one.name,
                )
        self._limits: Limits = replace(limits_of(config), time_limit_s=time_limit_s)
        self._workload = demand_of(trace, config)
        self._stock = stock_of(config.fleet, self._workload.models, hardware=config.hardware)
        self._simulated: dict[tuple[tuple[str, int], ...], Measured] = {}

    @property
    def simulated(self) -> int:
        """Placements simulated so far; weights that lead to the same one share it."""
        return len(self._simulated)

    def measure(self, weights: Mapping[str, float]) -> Measured:
        """Plan with these weights and replay the trace over what is planned.

        Raises:
            PlanError: no placement serves this demand.
            WorkloadError: weights that make no sense.
        """
        chosen = Weights.from_mapping({**self._config.planner.weights, **weights})
        plan = plan_stock(self._workload, self._stock, chosen, self._limits)
        counts = {one.group: one.replicas for one in plan.replicas if one.replicas}
        key = tuple(sorted(counts.items()))
        known = self._simulated.get(key)
        if known is None:
            fleet = bought(self._stock, counts)
            known = self._simulated[key] = self._replayed(fleet, plan.cost_usd_per_hour, counts)
        return replace(known, weights=dict(weights), planned_e2e_s=plan.e2e_s)

    def _replayed(self, fleet: Fleet, usd_per_hour: float, counts: Mapping[str, int]) -> Measured:
        config = replace(self._config, fleet=fleet)
        result = run_policy(self._trace, config, config.policy.name)
        figures = summarize(result)
        if not figures["completed"]:
            raise PlanError("nothing was served in the simulation of this placement")
        mean_s = figures["e2e_s"]["mean"]
        return Measured(
            {},
            dict(counts),
            usd_per_hour,
            power_kw(result, config.hardware),
            figures["ttft_s"]["p99"],
            mean_s,
            figures["e2e_s"]["p99"],
            figures["slo_attainment"],
            mean_s * figures["completed"] / observed_s(result),
            0.0,
        )


def demand_of(trace: Trace, config: MotleyConfig) -> Workload:
    """A trace as demand on a fleet: aliases resolved, unnamed models taken as the first."""

    def resolved(name: str) -> str:
        return config.aliases.get(name, name)

    records = (replace(record, model=resolved(record.model)) for record in trace.records())
    return build_workload(
        records,
        default_model=config.first_backend.model,
        tenant_group=tenant_group_of(config.planner),
    )


def power_kw(result: RunResult, hardware: Hardware) -> float:
    """Mean power of the fleet: idle cards draw their idle power, busy ones in proportion.

    How busy a backend was is the engine time of the requests it served over the time observed.
    """
    span_s = max(observed_s(result), 1e-9)
    served: dict[int, Counter[tuple[int, int]]] = {}
    for i, backend in enumerate(result.records.backend):
        if result.records.status[i] == Status.COMPLETED:
            lengths = (
                _rounded(result.trace.input_tokens[i]),
                _rounded(result.records.output_tokens[i]),
            )
            served.setdefault(backend, Counter())[lengths] += 1
    total_w = 0.0
    for index, spec in enumerate(result.backends):
        base = build_base(Candidate(spec, 0, 1), Limits(), hardware, {})
        busy_s = sum(
            count * service(base.facts, prompt, output).engine_s
            for (prompt, output), count in served.get(index, Counter()).items()
        )
        total_w += base.idle_w + (base.max_w - base.idle_w) * min(1.0, busy_s / span_s)
    return total_w / 1000.0


def _rounded(tokens: int) -> int:
    """To about 5 %, so that few services need working out."""
    return round(float(np.exp(round(float(np.log(max(1, tokens))) * 20) / 20)))
