"""Who touches what: the constant 0/1 (and card-count) matrices of a problem.

Sparse, because an edge touches one class and one column only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from solver.problem import Floats, Problem
from solver.stock import UNLIMITED


@dataclass(frozen=True, slots=True)
class StockRow:
    """One limit on cards: engines of ``size`` or more cards in one pool.

    Packing engines of 1, 2, 4... cards into islands of 1, 2, 4... cards succeeds if and only if,
    for each size k, the engines of at least k cards fit into the islands cut into pieces of k.
    """

    pool: int
    size: int
    slots: int


@dataclass(frozen=True, slots=True)
class Incidence:
    """Matrices over classes c, edges e, columns j, bases b, and their row labels.

    Attributes:
        by_class: (C, E), 1 where edge e belongs to class c.
        by_column: (J, E), 1 where edge e belongs to column j.
        by_base: (B, J), 1 where column j belongs to base b.
        by_model: (M, J), 1 where column j runs model m (rows as ``Problem.models``).
        stock: (R, J), pieces of ``stock_rows[r].size`` cards that one replica of j takes.
        stock_rows: (R,) labels and limits.
        by_tenant: (T, C), 1 where class c belongs to tenant group t.
        limited, limits: (L, J), 1 where column j belongs to the l-th base of which only so many
            engines exist; (L,) how many.
        zones: (Z, J), +1 in the zone of row z and minus ``max_zone_share`` everywhere in its
            model: at most 0 keeps the zone's share.
    """

    by_class: sparse.csr_matrix
    by_column: sparse.csr_matrix
    by_base: sparse.csr_matrix
    by_model: sparse.csr_matrix
    stock: sparse.csr_matrix
    stock_rows: tuple[StockRow, ...]
    by_tenant: sparse.csr_matrix
    limited: sparse.csr_matrix
    limits: Floats
    zones: sparse.csr_matrix

    @property
    def slots(self) -> Floats:
        """(R,) right-hand side of the stock rows."""
        return np.array([float(row.slots) for row in self.stock_rows])

    @property
    def most_replicas(self) -> Floats:
        """(J,) replicas of each column that its pool could hold."""
        pieces = self.stock.toarray()
        with np.errstate(divide="ignore"):
            room = np.where(pieces > 0, self.slots[:, None] // np.maximum(pieces, 1), np.inf)
        return np.asarray(room.min(axis=0, initial=np.inf))


def incidence(problem: Problem) -> Incidence:
    """Build the matrices of a problem."""
    columns = problem.columns
    base_of = [column.base for column in columns]
    model_of = [problem.models.index(problem.bases[b].spec.model) for b in base_of]
    tenant_of = [problem.tenants.index(work.tenant) for work in problem.classes]
    rows = tuple(_stock_rows(problem))
    scarce = [b for b, base in enumerate(problem.bases) if base.candidate.most < UNLIMITED]
    by_base = _indicator(base_of, len(problem.bases))
    return Incidence(
        by_class=_indicator(problem.edge_class, len(problem.classes)),
        by_column=_indicator(problem.edge_column, len(columns)),
        by_base=by_base,
        by_model=_indicator(model_of, len(problem.models)),
        stock=sparse.csr_matrix(_stock_matrix(problem, rows)),
        stock_rows=rows,
        by_tenant=_indicator(tenant_of, len(problem.tenants)),
        limited=by_base[scarce],
        limits=np.array([float(problem.bases[b].candidate.most) for b in scarce]),
        zones=sparse.csr_matrix(_zone_matrix(problem)),
    )


def _indicator(row_of: Sequence[int] | np.ndarray, rows: int) -> sparse.csr_matrix:
    count = len(row_of)
    return sparse.csr_matrix((np.ones(count), (row_of, np.arange(count))), shape=(rows, count))


def _stock_rows(problem: Problem) -> Iterator[StockRow]:
    for index, pool in enumerate(problem.stock.pools):
        used = {base.cards for base in problem.bases if base.candidate.pool == index}
        for size in sorted(used):
            yield StockRow(index, size, pool.slots(size))


def _stock_matrix(problem: Problem, rows: Sequence[StockRow]) -> Floats:
    matrix = np.zeros((len(rows), len(problem.columns)))
    for r, row in enumerate(rows):
        for j, column in enumerate(problem.columns):
            base = problem.bases[column.base]
            if base.candidate.pool == row.pool and base.cards >= row.size:
                matrix[r, j] = base.cards // row.size
    return matrix


def _zone_matrix(problem: Problem) -> Floats:
    """Rows for the models that more than one zone could hold."""
    share = problem.limits.max_zone_share
    rows: list[list[float]] = []
    places = [
        (problem.bases[column.base].spec.model, problem.bases[column.base].spec.zone)
        for column in problem.columns
    ]
    for model in problem.models if share < 1 else ():
        zones = sorted({zone for m, zone in places if m == model})
        for zone in zones if len(zones) > 1 else ():
            rows.append([(m == model) * ((z == zone) - share) for m, z in places])
    return np.array(rows).reshape(len(rows), len(problem.columns))
