"""The planning problem as arrays: who can serve whom, at what cost, within which limits.

Index sets: classes c, bases b (kinds of engine), columns j (a base run below one utilization
ceiling), edges e (a class that may use a column). Edges are stored flat: ``edge_class[e]`` and
``edge_column[e]`` say what they join, every other edge array is parallel to those two.
``assemble.py`` builds problems.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from solver.capacity import Base
from solver.congestion import Congestion
from solver.options import Limits
from solver.stock import Stock
from solver.unmet import Unmet
from solver.workload import WorkClass

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Column:
    """Replicas of one base that are kept below one utilization.

    Attributes:
        base: index of the base.
        ceiling: highest utilization.
        congestion: how delay grows with load.
    """

    base: int
    ceiling: float
    congestion: Congestion


@dataclass(frozen=True, slots=True)
class Problem:
    """Everything the solver needs, and the words to explain its answer.

    Attributes:
        classes: C classes of demand.
        bases: B kinds of engine.
        columns: J columns.
        stock: pools and what could not be built.
        limits: what to respect.
        edge_class, edge_column: (E,) indices.
        engine_s: (E,) engine-seconds per request.
        alone_s: (E,) seconds of E2E on an empty engine.
        kv_share: (E,) share of one replica's KV memory held per request per second, by Little's
            law at the column's ceiling.
        relaxed: classes whose SLO nobody meets, served as well as possible.
        refusals: by class, why bases that run its model cannot serve it.
    """

    classes: tuple[WorkClass, ...]
    bases: tuple[Base, ...]
    columns: tuple[Column, ...]
    stock: Stock
    limits: Limits
    edge_class: Ints
    edge_column: Ints
    engine_s: Floats
    alone_s: Floats
    kv_share: Floats
    relaxed: Mapping[int, Unmet] = field(default_factory=dict)
    refusals: Mapping[int, Sequence[str]] = field(default_factory=dict)

    @property
    def rates(self) -> Floats:
        """(C,) arrivals per second."""
        return np.array([work.rate_per_s for work in self.classes])

    @property
    def models(self) -> list[str]:
        """Models that some base can run, sorted."""
        return sorted({base.spec.model for base in self.bases})

    @property
    def tenants(self) -> list[str]:
        """Tenant groups, sorted."""
        return sorted({work.tenant for work in self.classes})

    @property
    def running(self) -> Ints:
        """(B,) replicas that run now."""
        return np.array([base.candidate.running for base in self.bases], dtype=np.int64)

    def orphans(self) -> list[int]:
        """Classes with demand that no column can serve."""
        reached = set(self.edge_class.tolist())
        return [
            c for c, work in enumerate(self.classes) if work.rate_per_s > 0 and c not in reached
        ]
