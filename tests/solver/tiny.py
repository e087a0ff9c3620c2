"""Small problems whose answers are known, and a second opinion on them that shares no code."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
from scipy.optimize import linprog

from router.domain.fleet import BackendSpec, Fleet
from router.perf.roofline import IterationModel
from solver.capacity import Base
from solver.congestion import Congestion
from solver.options import Limits, Weights
from solver.points import PLACE_POINTS
from solver.problem import Column, Problem
from solver.service import EngineFacts
from solver.stock import UNLIMITED, Candidate, Pool, Stock
from solver.workload import WorkClass, Workload

MODEL = "llama-3.1-8b"


def work(
    rate: float = 1.0,
    *,
    prompt: float = 500,
    output: float = 100,
    model: str = MODEL,
    slo: str = "bulk",
    tenant: str = "",
    longest: int | None = None,
) -> WorkClass:
    return WorkClass(
        model,
        slo,
        tenant,
        prompt_limit=prompt,
        output_limit=output,
        prompt_tokens=prompt,
        output_tokens=output,
        longest_tokens=int(prompt + output) if longest is None else longest,
        rate_per_s=rate,
    )


def demand(*classes: WorkClass) -> Workload:
    return Workload(classes)


def backends(gpu: str, count: int, **fields: object) -> list[BackendSpec]:
    zone = fields.get("zone", "")
    values = {"engine": "vllm", "model": MODEL, **fields}
    name = f"{gpu}{zone}{values['model']}"
    return [BackendSpec(f"{name}-{n}", gpu, **values) for n in range(count)]  # type: ignore[arg-type]


def fleet(*groups: list[BackendSpec]) -> Fleet:
    return Fleet(tuple(spec for group in groups for spec in group))


def linear_model(
    *, step_s: float = 0.01, seq_s: float = 0.0, prefill_token_s: float = 0.0
) -> IterationModel:
    """``t = step + seq*B + prefill*n``: the form for which the congestion curve is exact."""
    return IterationModel(
        step_s=step_s,
        seq_s=seq_s,
        prefill_comm_s=prefill_token_s,
        weights_s=0.0,
        prefill_token_s=0.0,
        decode_token_s=0.0,
        context_s=0.0,
        pair_s=0.0,
        exponent=1.0,
    )


def engine(model: IterationModel | None = None, **fields: object) -> EngineFacts:
    values = {
        "kv_capacity_tokens": 1_000_000,
        "max_context_tokens": 32_768,
        "max_num_seqs": 64,
        "max_num_batched_tokens": 1_000_000,
        "chunked_prefill": True,
        **fields,
    }
    return EngineFacts(model=model or linear_model(), **values)  # type: ignore[arg-type]


def base(
    name: str,
    *,
    pool: int = 0,
    cards: int = 1,
    dollars: float = 1.0,
    model: str = MODEL,
    running: int = 0,
    zone: str = "",
    most: int = UNLIMITED,
) -> Base:
    spec = BackendSpec(name, name, "vllm", model, tensor_parallel=cards, zone=zone)
    candidate = Candidate(spec, pool, running, most)
    return Base(candidate, engine(), dollars, idle_w=50.0, max_w=300.0, load_s=60.0)


def problem(
    rates: list[float],
    bases: list[Base],
    columns: list[tuple[int, float, Congestion]],
    edges: list[tuple[int, int, float, float, float]],
    *,
    pools: list[Pool],
    limits: Limits | None = None,
    tenants: list[str] | None = None,
) -> Problem:
    """Put a problem together by hand; edges are (class, column, engine_s, alone_s, kv_share)."""
    names = tenants or [""] * len(rates)
    classes = tuple(
        work(rate, prompt=100 * (c + 1), tenant=tenant)
        for c, (rate, tenant) in enumerate(zip(rates, names, strict=True))
    )
    c, j, engine_s, alone_s, kv_share = (np.array(column) for column in zip(*edges, strict=True))
    return Problem(
        classes,
        tuple(bases),
        tuple(Column(*column) for column in columns),
        Stock(tuple(pools), tuple(one.candidate for one in bases)),
        limits or Limits(mip_gap=1e-6),
        edge_class=c.astype(np.int64),
        edge_column=j.astype(np.int64),
        engine_s=engine_s.astype(float),
        alone_s=alone_s.astype(float),
        kv_share=kv_share.astype(float),
    )


def with_stock(given: Problem, pairs: int) -> Problem:
    """The same problem with another number of linked pairs of cards in every pool."""
    pools = tuple(replace(pool, islands={2: pairs}) for pool in given.stock.pools)
    return replace(given, stock=replace(given.stock, pools=pools))


def best_by_enumeration(given: Problem, weights: Weights) -> float:
    """Least objective over all placements, each priced by a linear program written out here."""
    capacity = [
        given.stock.pools[given.bases[column.base].candidate.pool].cards
        // given.bases[column.base].cards
        for column in given.columns
    ]
    costs = [
        _placement_cost(given, weights, np.array(counts))
        for counts in product(*(range(most + 1) for most in capacity))
        if _allowed(given, np.array(counts))
    ]
    return min(costs, default=float("inf"))


def _allowed(given: Problem, counts: np.ndarray) -> bool:
    limits = given.limits
    planned = np.zeros(len(given.bases))
    for n, column in zip(counts, given.columns, strict=True):
        planned[column.base] += n
    started = sum(
        max(0, n - one.candidate.running) for n, one in zip(planned, given.bases, strict=True)
    )
    if limits.max_moves is not None and started > limits.max_moves:
        return False
    if any(n > one.candidate.most for n, one in zip(planned, given.bases, strict=True)):
        return False
    for p, pool in enumerate(given.stock.pools):
        used = sum(
            n * given.bases[column.base].cards
            for n, column in zip(counts, given.columns, strict=True)
            if given.bases[column.base].candidate.pool == p
        )
        if used > pool.cards:
            return False
    for model in {one.spec.model for one in given.bases}:
        ready = sum(
            n
            for n, column in zip(counts, given.columns, strict=True)
            if given.bases[column.base].spec.model == model
        )
        if ready < limits.min_replicas:
            return False
    dollars = sum(
        n * given.bases[column.base].usd_per_hour
        for n, column in zip(counts, given.columns, strict=True)
    )
    return limits.budget_usd_per_hour is None or dollars <= limits.budget_usd_per_hour + 1e-9


def _placement_cost(given: Problem, weights: Weights, counts: np.ndarray) -> float:
    """Routing LP over [flows, unserved, extra, worst], plus what the replicas cost."""
    edges, classes, columns = len(given.edge_class), len(given.classes), len(given.columns)
    rates = [one.rate_per_s for one in given.classes]
    busy_kw = np.array(
        [
            (given.bases[given.columns[j].base].max_w - given.bases[given.columns[j].base].idle_w)
            / 1000
            for j in given.edge_column
        ]
    )
    cost = np.concatenate(
        [
            weights.latency * given.alone_s + weights.energy * busy_kw * given.engine_s,
            np.full(classes, weights.unserved),
            np.full(columns, weights.latency),
            [weights.fairness],
        ]
    )
    size = len(cost)
    upper, limit = [], []
    for j, column in enumerate(given.columns):
        load = np.where(given.edge_column == j, given.engine_s, 0.0)
        row = np.zeros(size)
        row[:edges] = load
        upper.append(row)
        limit.append(column.ceiling * counts[j])
        row = np.zeros(size)
        row[:edges] = np.where(given.edge_column == j, given.kv_share, 0.0)
        upper.append(row)
        limit.append(given.limits.kv_ceiling * counts[j])
        for share in PLACE_POINTS:
            rho = share * column.ceiling
            slope, extra = column.congestion.slope(rho), column.congestion.extra(rho)
            row = np.zeros(size)
            row[:edges] = slope * load
            row[edges + classes + j] = -1.0
            upper.append(row)
            limit.append(-(extra - slope * rho) * counts[j])
    for tenant in {one.tenant for one in given.classes}:
        members = [c for c, one in enumerate(given.classes) if one.tenant == tenant]
        row = np.zeros(size)
        row[[edges + c for c in members]] = 1.0
        row[-1] = -sum(rates[c] for c in members)
        upper.append(row)
        limit.append(0.0)
    equal = np.zeros((classes, size))
    for e, c in enumerate(given.edge_class):
        equal[c, e] = 1.0
    equal[np.arange(classes), edges + np.arange(classes)] = 1.0
    found = linprog(cost, np.array(upper), limit, equal, rates)
    assert found.status == 0
    return float(found.fun) + _replica_cost(given, weights, counts)


def _replica_cost(given: Problem, weights: Weights, counts: np.ndarray) -> float:
    total = 0.0
    planned = np.zeros(len(given.bases))
    for n, column in zip(counts, given.columns, strict=True):
        planned[column.base] += n
        own = given.bases[column.base]
        total += n * (weights.cost * own.usd_per_hour + weights.energy * own.idle_w / 1000)
    for n, one in zip(planned, given.bases, strict=True):
        started = max(0.0, n - one.candidate.running)
        total += weights.switching * started * one.load_s * one.cards / given.limits.horizon_s
    return total
