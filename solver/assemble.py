"""From demand and stock to a ``Problem``: which columns are worth having, who may use them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from router.domain.errors import InfeasiblePlanError
from solver.capacity import Base, BaseFits, Believed, build_base, fit_bases, slo_of
from solver.congestion import Congestion
from solver.options import Limits
from solver.problem import Column, Problem
from solver.stock import Stock
from solver.unmet import Unmet, in_words
from solver.workload import WorkClass, Workload

IDLE = Congestion(1.0, 1.0)
"""Stands in for the congestion of an engine without demand."""
NEARLY_AS_GOOD = 1.5
"""Where nobody meets a class's SLO, engines that miss it by at most this much more may serve it."""


def build_problem(
    workload: Workload,
    stock: Stock,
    limits: Limits,
    *,
    believed: Believed | None = None,
    tiered: bool = True,
) -> Problem:
    """Work out columns and edges.

    Args:
        workload: demand.
        stock: cards and candidates.
        limits: what to respect.
        believed: iteration times by group, where they differ from the catalogue's.
        tiered: one column per useful ceiling of each base (to place); otherwise one per base at
            the highest ceiling (to route over what runs).

    Raises:
        WorkloadError: an SLO class that is not defined.
        InfeasiblePlanError: ``limits.strict_slo`` and a class whose SLO nobody meets.
    """
    bases = tuple(
        build_base(one, limits, stock.hardware, believed or {}) for one in stock.candidates
    )
    return assemble(workload.classes, bases, stock, limits, tiered=tiered)


def assemble(
    classes: tuple[WorkClass, ...],
    bases: tuple[Base, ...],
    stock: Stock,
    limits: Limits,
    *,
    tiered: bool = True,
) -> Problem:
    """As ``build_problem``, from bases that were looked up before.

    Raises:
        InfeasiblePlanError: some class cannot keep its targets anywhere, and ``strict_slo`` is set.
    """
    for work in classes:
        slo_of(work, limits)
    models = {work.model for work in classes}
    fits = fit_bases(bases, classes, limits)
    relaxed = relax_unreachable(classes, bases, fits, max(limits.ceilings))
    if relaxed and limits.strict_slo:
        raise InfeasiblePlanError("SLO: " + "; ".join(in_words(relaxed.values())))
    columns: list[Column] = []
    edges = _Edges()
    for b, (base, fit) in enumerate(zip(bases, fits, strict=True)):
        wanted = base.spec.model in models
        for ceiling in _ceilings(base, fit, limits, tiered=tiered, wanted=wanted):
            edges.extend(len(columns), base, fit, 0.0 if not tiered else ceiling, ceiling)
            columns.append(Column(b, ceiling, fit.congestion or IDLE))
    return Problem(
        classes,
        bases,
        tuple(columns),
        stock,
        limits,
        edge_class=np.array(edges.edge_class, dtype=np.int64),
        edge_column=np.array(edges.edge_column, dtype=np.int64),
        engine_s=np.array(edges.engine_s),
        alone_s=np.array(edges.alone_s),
        kv_share=np.array(edges.kv_share),
        relaxed=relaxed,
        refusals=_refusals(fits),
    )


def relax_unreachable(
    classes: Sequence[WorkClass], bases: Sequence[Base], fits: Sequence[BaseFits], top: float
) -> dict[int, Unmet]:
    """Open the best engines to classes whose SLO nobody meets; returns those.

    ``fits`` is changed in place: the ceilings of such classes become ``top`` there.
    """
    found: dict[int, Unmet] = {}
    for c, work in enumerate(classes):
        options = [(f, b) for b, f in enumerate(fits) if c in f.fits]
        if not options or any(fit.fits[c].ceiling > 0 for fit, _ in options):
            continue
        least = min(fit.fits[c].missed[1] for fit, _ in options)
        near = [pair for pair in options if pair[0].fits[c].missed[1] <= NEARLY_AS_GOOD * least]
        for fit, _ in near:
            fit.fits[c] = replace(fit.fits[c], ceiling=top)
        best, b = min(near, key=lambda pair: pair[0].fits[c].missed[1])
        found[c] = Unmet(work.name, best.fits[c].missed[0], bases[b].group, least)
    return found


@dataclass(slots=True)
class _Edges:
    edge_class: list[int] = field(default_factory=list)
    edge_column: list[int] = field(default_factory=list)
    engine_s: list[float] = field(default_factory=list)
    alone_s: list[float] = field(default_factory=list)
    kv_share: list[float] = field(default_factory=list)

    def extend(self, column: int, base: Base, fit: BaseFits, needed: float, ceiling: float) -> None:
        """Join a column to every class that holds its SLO at the utilization ``needed``."""
        for c in allowed(fit, needed):
            one = fit.fits[c].service
            self.edge_class.append(c)
            self.edge_column.append(column)
            self.engine_s.append(one.engine_s)
            self.alone_s.append(one.alone_s)
            self.kv_share.append(_kv_share(base, fit, c, ceiling))


def allowed(fit: BaseFits, rho: float) -> list[int]:
    """Classes that hold their SLO on a base at ``rho``; at 0, those that do at any ceiling."""
    return [c for c, one in fit.fits.items() if one.ceiling > 0 and one.ceiling >= rho]


def _kv_share(base: Base, fit: BaseFits, c: int, ceiling: float) -> float:
    one = fit.fits[c].service
    return one.context_tokens * one.e2e_s(ceiling) / base.facts.kv_capacity_tokens


def _ceilings(
    base: Base, fit: BaseFits, limits: Limits, *, tiered: bool, wanted: bool
) -> Iterator[float]:
    """Ceilings worth a column: the highest, and lower ones that admit classes it does not.

    A lower ceiling that admits nobody new is only a tighter copy, unless the KV row could bind
    at the higher one (``kv_share`` is computed at the ceiling). A model that nobody asks for
    right now keeps a column, so that it can be kept ready.
    """
    if not allowed(fit, 0.0) and wanted:
        return
    if not tiered or not wanted:
        yield max(limits.ceilings)
        return
    kept: set[int] = set()
    kv_binds = False
    for ceiling in sorted(limits.ceilings, reverse=True):
        able = set(allowed(fit, ceiling))
        if able - kept or (able and kv_binds):
            yield ceiling
            kept |= able
            densest = max(
                _kv_share(base, fit, c, ceiling) / fit.fits[c].service.engine_s for c in able
            )
            kv_binds = densest * ceiling > limits.kv_ceiling


def _refusals(fits: Sequence[BaseFits]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for fit in fits:
        for c, reason in fit.refused.items():
            found.setdefault(c, []).append(reason)
    return found
