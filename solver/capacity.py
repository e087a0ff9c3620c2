"""What each candidate engine can do for each class, and which classes may use it.

Speeds are the catalogue's priors unless the caller believes something else of a group, as the
router does once telemetry has taught it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from router.domain.errors import UnknownNameError, WorkloadError
from router.domain.fleet import BackendSpec
from router.domain.protocols import PerfModel
from router.domain.slo import Slo
from router.perf.feasible import quantization_of
from router.perf.hardware import Hardware
from solver.congestion import Congestion, congestion
from solver.latency import slo_excess
from solver.options import Limits
from solver.service import EngineFacts, Service, service
from solver.stock import Candidate
from solver.workload import WorkClass

Believed = Mapping[str, PerfModel]
"""Iteration time by group, where it is believed to differ from the catalogue's."""

FULL_LOAD_SHARE_OF_TDP = 0.85
"""H100 at batch 128 draws 86 % of its TDP (ML.ENERGY v3.0, as cited by semantic-router)."""


@dataclass(frozen=True, slots=True)
class Base:
    """A candidate with everything the planner needs to know of it.

    Attributes:
        candidate: which engine, from which pool, and how many run now.
        facts: speed and memory of one engine.
        usd_per_hour, idle_w, max_w: of all its cards.
        load_s: from order to ready.
    """

    candidate: Candidate
    facts: EngineFacts
    usd_per_hour: float
    idle_w: float
    max_w: float
    load_s: float

    @property
    def spec(self) -> BackendSpec:
        """The engine."""
        return self.candidate.spec

    @property
    def group(self) -> str:
        """Name of the group."""
        return self.spec.group

    @property
    def cards(self) -> int:
        """Cards of one engine."""
        return self.spec.tensor_parallel


@dataclass(frozen=True, slots=True)
class Fit:
    """One class on one base: its service, and the highest ceiling at which its SLO holds.

    Attributes:
        service: cost and latency.
        ceiling: 0 when the SLO fails even at the lowest ceiling.
        missed: the target missed worst at the lowest ceiling, and P99 over target.
    """

    service: Service
    ceiling: float
    missed: tuple[str, float]


@dataclass(frozen=True, slots=True)
class BaseFits:
    """All classes on one base.

    Attributes:
        congestion: how delay grows on it, for the mix of classes that fit.
        fits: by class index.
        refused: why the others cannot use it, by class index.
    """

    congestion: Congestion | None
    fits: dict[int, Fit]
    refused: Mapping[int, str]


def build_base(
    candidate: Candidate, limits: Limits, hardware: Hardware, believed: Believed
) -> Base:
    """Look up one candidate's facts."""
    spec, catalog = candidate.spec, hardware.catalog
    gpu = catalog.gpu(spec.gpu)
    defaults = hardware.engine_defaults(spec)
    facts = EngineFacts(
        model=believed.get(spec.group) or hardware.iteration_model(spec),
        kv_capacity_tokens=hardware.kv_capacity_tokens(spec),
        max_context_tokens=hardware.max_context_tokens(spec),
        max_num_seqs=defaults.max_num_seqs,
        max_num_batched_tokens=defaults.max_num_batched_tokens,
        chunked_prefill=defaults.chunked_prefill,
    )
    weights_gb = quantization_of(spec, catalog).weight_bytes(catalog.model(spec.model)) / 1e9
    price = limits.prices_usd_per_hour.get(spec.gpu, gpu.price_usd_per_hour)
    return Base(
        candidate,
        facts,
        usd_per_hour=price * spec.tensor_parallel,
        idle_w=gpu.idle_w * spec.tensor_parallel,
        max_w=gpu.tdp_w * FULL_LOAD_SHARE_OF_TDP * spec.tensor_parallel,
        load_s=limits.boot_s + weights_gb / limits.load_gb_per_s,
    )


def fit_bases(
    bases: Sequence[Base], classes: Sequence[WorkClass], limits: Limits
) -> list[BaseFits]:
    """Which classes each base can serve; worked out once for bases that differ in zone only."""
    known: dict[tuple[EngineFacts, str, str], BaseFits] = {}
    found = []
    for base in bases:
        key = (base.facts, base.spec.model, base.spec.quantization)
        fit = known.get(key)
        if fit is None:
            fit = known[key] = fit_base(base, classes, limits)
        found.append(replace(fit, fits=dict(fit.fits)))
    return found


def fit_base(base: Base, classes: Sequence[WorkClass], limits: Limits) -> BaseFits:
    """Which classes a base can serve, how fast, and up to which load."""
    services: dict[int, Service] = {}
    refused: dict[int, str] = {}
    for index, work in enumerate(classes):
        if work.model != base.spec.model:
            continue
        obstacle = _obstacle(base, work, limits)
        if obstacle:
            refused[index] = obstacle
        else:
            services[index] = service(
                base.facts, work.prompt_tokens, work.output_tokens, work.cached_tokens
            )
    if not services:
        return BaseFits(None, {}, refused)
    shared = congestion([(classes[i].rate_per_s, one) for i, one in services.items()])
    fits = {
        i: _fit(one, shared, classes[i], slo_of(classes[i], limits), limits.ceilings)
        for i, one in services.items()
    }
    return BaseFits(shared, fits, refused)


def slo_of(work: WorkClass, limits: Limits) -> Slo:
    """Targets of a class, for its model.

    Raises:
        WorkloadError: the SLO class is not defined.
    """
    try:
        return limits.slos[work.slo_class].of_model(work.model)
    except KeyError:
        problem = UnknownNameError("SLO class", work.slo_class, limits.slos)
        raise WorkloadError(f"{problem} Define it under 'slos' of the fleet file.") from None


def _obstacle(base: Base, work: WorkClass, limits: Limits) -> str:
    """Why a base cannot serve a class at any speed; empty if it can."""
    if work.longest_tokens > base.facts.max_context_tokens:
        return (
            f"context of up to {work.longest_tokens} tokens; {base.group} holds "
            f"{base.facts.max_context_tokens}"
        )
    floor = limits.quality_floor.get(work.slo_class)
    quality = limits.quality_of(base.spec)
    if floor is not None and quality is not None and quality < floor:
        return f"quality {quality:g} of {base.group} is below the floor of {floor:g}"
    return ""


def _fit(
    one: Service, shared: Congestion, work: WorkClass, slo: Slo, ceilings: Sequence[float]
) -> Fit:
    kept = 0.0
    for rho in sorted(ceilings):
        if slo_excess(one, shared, slo, work.output_tokens, rho)[1] > 1.0:
            break
        kept = rho
    return Fit(one, kept, slo_excess(one, shared, slo, work.output_tokens, min(ceilings)))
