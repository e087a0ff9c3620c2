"""All cells of a sweep: what is missing is run, what fails is retried, the frontier refined."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from simulator.summary import Summary
from simulator.sweep.cell import Cell
from simulator.sweep.executors import Executor
from simulator.sweep.frontier import Frontier, frontiers, group_of, midpoint
from simulator.sweep.spec import SweepSpec
from simulator.sweep.store import Store

Progress = Callable[[int, int, str], object]


@dataclass(slots=True)
class SweepResult:
    """What a sweep found.

    Attributes:
        spec: what was asked.
        results: by cell, in the order of the grid, then of refinement.
        failures: what went wrong with the cells that have no result.
        resumed: cells that were on disk already.
    """

    spec: SweepSpec
    results: dict[Cell, Summary] = field(default_factory=dict)
    failures: dict[Cell, str] = field(default_factory=dict)
    resumed: int = 0

    def frontiers(self) -> list[Frontier]:
        """How far each policy gets on each trace and fleet."""
        return frontiers(self.results, self.spec.slo_attainment)


def grid(spec: SweepSpec) -> list[Cell]:
    """The cells the file asks for."""
    return [
        Cell(
            replace(trace, rate_scale=load),
            fleet,
            policy,
            seed,
            spec.options,
            spec.faults,
            spec.learned,
        )
        for trace in spec.traces
        for fleet in spec.fleets
        for policy in spec.policies
        for load in spec.loads
        for seed in spec.seeds
    ]


class Sweep:
    """Runs a sweep.

    Args:
        spec: what.
        store: finished cells.
        execute: where cells run.
        retries: how often a failed cell is tried again.
        progress: told (cells done, cells known, what just ended).
    """

    def __init__(
        self,
        spec: SweepSpec,
        store: Store,
        execute: Executor,
        *,
        retries: int = 1,
        progress: Progress | None = None,
    ) -> None:
        self._store = store
        self._execute = execute
        self._retries = retries
        self._progress = progress
        self._known = 0
        self._found = SweepResult(spec)

    def run(self) -> SweepResult:
        """Run what is missing, then halve the interval around every frontier."""
        spec, found = self._found.spec, self._found
        cells = grid(spec)
        self._fill(cells)
        for _ in range(spec.refine):
            more = self._refinement()
            if not more:
                break
            self._fill(more)
            cells += more
        order = {cell: k for k, cell in enumerate(cells)}
        found.results = dict(sorted(found.results.items(), key=lambda item: order[item[0]]))
        return found

    def _fill(self, cells: Iterable[Cell]) -> None:
        missing = []
        wanted = list(cells)
        self._known += len(wanted)
        for cell in wanted:
            summary = self._store.load(cell)
            if summary is None:
                missing.append(cell)
            else:
                self._found.resumed += 1
                self._done(cell, summary)
        for attempt in range(self._retries + 1):
            missing = self._attempt(missing, last=attempt == self._retries)

    def _attempt(self, cells: list[Cell], *, last: bool) -> list[Cell]:
        """Run cells once; returns those that failed."""
        failed = []
        for cell, summary, problem in self._execute(cells) if cells else ():
            if summary is not None:
                self._store.save(cell, summary)
                self._done(cell, summary)
            else:
                failed.append(cell)
                if last:
                    self._found.failures[cell] = problem
                    self._tell(f"failed: {cell.name}: {problem}")
        return failed

    def _done(self, cell: Cell, summary: Summary) -> None:
        self._found.results[cell] = summary
        self._tell(cell.name)

    def _tell(self, what: str) -> None:
        if self._progress is not None:
            ended = len(self._found.results) + len(self._found.failures)
            self._progress(ended, self._known, what)

    def _refinement(self) -> list[Cell]:
        """The next load of every group whose frontier lies between two loads tried."""
        wanted = {
            (f.trace, f.fleet, f.policy): load
            for f in self._found.frontiers()
            if (load := midpoint(f)) is not None
        }
        cells: dict[Cell, None] = {}
        for cell in self._found.results:
            load = wanted.get(group_of(cell))
            if load is not None:
                cells[replace(cell, trace=replace(cell.trace, rate_scale=load))] = None
        return [cell for cell in cells if cell not in self._found.results]


def sweep_json(result: SweepResult) -> dict[str, Any]:
    """The sweep as plain JSON values: ``runs`` as in ``motley simulate``, and ``frontier``."""
    return {
        "runs": list(result.results.values()),
        "frontier": [
            {
                "trace": f.trace,
                "fleet": f.fleet,
                "policy": f.policy,
                "slo_attainment": result.spec.slo_attainment,
                "load_held": f.holds.load if f.holds else None,
                "requests_per_s_held": f.holds.offered_per_s if f.holds else None,
                "load_failed": f.fails.load if f.fails else None,
                "points": [
                    {
                        "load": p.load,
                        "offered_per_s": p.offered_per_s,
                        "goodput_per_s": p.goodput_per_s,
                        "slo_attainment": p.attainment,
                        "seeds": p.seeds,
                    }
                    for p in f.points
                ],
            }
            for f in result.frontiers()
        ],
        "failed": [
            {"cell": cell.name, "problem": problem} for cell, problem in result.failures.items()
        ],
    }
