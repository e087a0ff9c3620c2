"""The goodput frontier: the highest load at which the SLO holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from simulator.summary import Summary
from simulator.sweep.cell import Cell

Results = Mapping[Cell, Summary]
GroupKey = tuple[str, str, str]
"""Trace, fleet, policy."""


@dataclass(frozen=True, slots=True)
class Point:
    """One load of one group, averaged over its seeds.

    Attributes:
        load: rate scale.
        offered_per_s, goodput_per_s: requests per second.
        attainment: share within their SLO.
        seeds: how many runs are behind it.
        e2e_p99_s: by seed.
    """

    load: float
    offered_per_s: float
    goodput_per_s: float
    attainment: float
    seeds: int
    e2e_p99_s: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Frontier:
    """How far one policy gets on one trace and fleet.

    Attributes:
        trace, fleet, policy: the group.
        points: by ascending load.
        holds: the highest load at which the SLO holds, all lower ones included; ``None`` if
            it does not hold at the lowest load tried.
        fails: the lowest load tried at which it does not; ``None`` if it always holds.
    """

    trace: str
    fleet: str
    policy: str
    points: tuple[Point, ...]
    holds: Point | None
    fails: Point | None

    @property
    def text(self) -> str:
        """The frontier in requests per second, for people."""
        if self.holds is None:
            return f"below {self.points[0].offered_per_s:.2f}"
        if self.fails is None:
            return f"at least {self.holds.offered_per_s:.2f}"
        return f"{self.holds.offered_per_s:.2f}"


def group_of(cell: Cell) -> GroupKey:
    """Which group a cell belongs to."""
    return trace_name(cell), cell.fleet.stem, cell.policy


def trace_name(cell: Cell) -> str:
    """The trace for people; the window too, because one file may be swept in two."""
    spec = cell.trace
    name = Path(spec.source).name
    window = "" if spec.duration_s is None else f" [{spec.start_s:g} +{spec.duration_s:g} s]"
    return name + window


def frontiers(results: Results, target: float) -> list[Frontier]:
    """One frontier per group, in the order of first appearance."""
    groups: dict[GroupKey, list[Cell]] = {}
    for cell in results:
        groups.setdefault(group_of(cell), []).append(cell)
    return [_frontier(key, cells, results, target) for key, cells in groups.items()]


def midpoint(frontier: Frontier) -> float | None:
    """The load to try next, half way between holding and failing; ``None`` if there is none."""
    if frontier.holds is None or frontier.fails is None:
        return None
    return round((frontier.holds.load + frontier.fails.load) / 2, 6)


def _frontier(key: GroupKey, cells: Sequence[Cell], results: Results, target: float) -> Frontier:
    loads: dict[float, list[Cell]] = {}
    for cell in cells:
        loads.setdefault(cell.load, []).append(cell)
    points = tuple(_point(load, loads[load], results) for load in sorted(loads))
    holds, fails = None, None
    for point in points:
        if point.attainment < target:
            fails = point
            break
        holds = point
    return Frontier(*key, points, holds, fails)


def _point(load: float, cells: Sequence[Cell], results: Results) -> Point:
    summaries = [results[cell] for cell in cells]
    return Point(
        load=load,
        offered_per_s=_mean(summaries, "offered_per_s"),
        goodput_per_s=_mean(summaries, "goodput_per_s"),
        attainment=_mean(summaries, "slo_attainment"),
        seeds=len(cells),
        e2e_p99_s={
            cell.seed: results[cell]["e2e_s"]["p99"]
            for cell in cells
            if results[cell]["e2e_s"]["p99"] is not None
        },
    )


def _mean(summaries: Sequence[Summary], name: str) -> float:
    return sum(float(summary[name]) for summary in summaries) / len(summaries)
