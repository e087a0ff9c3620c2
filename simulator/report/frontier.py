"""A sweep for people: the frontier as a table, and a page with goodput against load."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from simulator.compare import t_interval
from simulator.report import plots
from simulator.report.page import document, section, table
from simulator.sweep.frontier import Frontier, Point
from simulator.sweep.sweep import SweepResult

Where = tuple[str, str]
"""Trace and fleet."""


def frontier_table(result: SweepResult) -> RenderableType:
    """The highest load that each policy holds, per trace and fleet; the best marked."""
    parts: list[RenderableType] = []
    target = 100 * result.spec.slo_attainment
    for (trace, fleet), frontiers in by_place(result.frontiers()).items():
        lines = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
        lines.add_column("policy", no_wrap=True)
        names = ("load\nheld", "requests\n/s", "goodput\n/s", "SLO\nmet", "most goodput\n/s")
        for name in names:
            lines.add_column(name, justify="right")
        best = max((f.holds.load for f in frontiers if f.holds), default=math.nan)
        for frontier in frontiers:
            lines.add_row(*_cells(frontier, best))
        title = f"{trace} on {fleet}: highest load with {target:g} % within their SLO"
        parts += [Text(title, style="bold"), lines]
    parts += [
        Text(f"failed: {cell.name}: {problem}", style="red")
        for cell, problem in result.failures.items()
    ]
    return Group(*parts)


def by_place(frontiers: Sequence[Frontier]) -> dict[Where, list[Frontier]]:
    """Frontiers by trace and fleet."""
    places: dict[Where, list[Frontier]] = {}
    for frontier in frontiers:
        places.setdefault((frontier.trace, frontier.fleet), []).append(frontier)
    return places


def _cells(frontier: Frontier, best: float) -> list[Text]:
    most = max(point.goodput_per_s for point in frontier.points)
    if frontier.holds is None:
        first = frontier.points[0]
        return [
            Text(frontier.policy),
            Text(f"< {first.load:g}", style="red"),
            Text(frontier.text),
            Text("-"),
            Text(f"{100 * first.attainment:.1f}%"),
            Text(f"{most:.2f}"),
        ]
    style = "green" if frontier.holds.load == best else ""
    more = ">= " if frontier.fails is None else ""
    return [
        Text(frontier.policy),
        Text(f"{more}{frontier.holds.load:.4g}", style=style),
        Text(f"{frontier.holds.offered_per_s:.2f}", style=style),
        Text(f"{frontier.holds.goodput_per_s:.2f}"),
        Text(f"{100 * frontier.holds.attainment:.1f}%"),
        Text(f"{most:.2f}"),
    ]


def write_sweep_page(result: SweepResult, path: Path) -> None:
    """Write the page of a sweep: one part per trace and fleet."""
    spec = result.spec
    sections = []
    for (trace, fleet), frontiers in by_place(result.frontiers()).items():
        curves = {
            f.policy: [(p.offered_per_s, p.goodput_per_s, p.attainment) for p in f.points]
            for f in frontiers
        }
        body = plots.goodput_plot(curves, spec.slo_attainment)
        body += _frontier_html(frontiers) + _differences_html(frontiers)
        sections.append(section(f"{trace} on {fleet}", body))
    if result.failures:
        rows = [
            f"<tr><th>{escape(cell.name)}</th><td class='text'>{escape(problem)}</td></tr>"
            for cell, problem in result.failures.items()
        ]
        head = "<tr><th>cell</th><th class='text'>problem</th></tr>"
        sections.append(section("Failed cells", table(head, rows)))
    about = {
        "runs": str(len(result.results)),
        "seeds": ", ".join(map(str, spec.seeds)),
        "SLO held means": f"{100 * spec.slo_attainment:g} % of requests within their SLO",
    }
    path.write_text(document(f"sweep {spec.name}", sections, about), encoding="utf-8")


def _frontier_html(frontiers: Sequence[Frontier]) -> str:
    best = max((f.holds.load for f in frontiers if f.holds), default=math.nan)
    rows = []
    for frontier in frontiers:
        marked = frontier.holds is not None and frontier.holds.load == best
        most = max(point.goodput_per_s for point in frontier.points)
        rows.append(
            f"<tr{' class=best' if marked else ''}><th>{escape(frontier.policy)}</th>"
            f"<td>{escape(frontier.text)}</td><td>{most:.2f}</td></tr>"
        )
    head = "<tr><th>policy</th><th>highest load held, requests /s</th>"
    return table(head + "<th>most goodput, requests /s</th></tr>", rows)


def _differences_html(frontiers: Sequence[Frontier]) -> str:
    """At every load, E2E P99 of each policy against the best there, paired over seeds."""
    rows = []
    loads = sorted({point.load for f in frontiers for point in f.points})
    for load in loads:
        points = {f.policy: p for f in frontiers for p in f.points if p.load == load}
        rows += _differences_at(load, points)
    if not rows:
        return "<p class='quiet'>Three seeds or more would tell which differences are noise.</p>"
    head = "<tr><th>load</th><th class='text'>policy</th><th class='text'>best</th>"
    head += "<th>E2E P99, more than the best (s)</th><th>95 % interval</th>"
    quiet = "<p class='quiet'>Student's t, paired over seeds; noise: the interval holds zero.</p>"
    return table(head + "<th class='text'>verdict</th></tr>", rows) + quiet


def _differences_at(load: float, points: dict[str, Point]) -> list[str]:
    known = {name: p for name, p in points.items() if len(p.e2e_p99_s) >= 3}
    if len(known) < 2:
        return []
    means = {name: sum(p.e2e_p99_s.values()) / len(p.e2e_p99_s) for name, p in known.items()}
    best = min(means, key=lambda name: means[name])
    rows = []
    for name, point in known.items():
        shared = sorted(point.e2e_p99_s.keys() & known[best].e2e_p99_s.keys())
        if name == best or len(shared) < 3:
            continue
        paired = [point.e2e_p99_s[seed] - known[best].e2e_p99_s[seed] for seed in shared]
        low, high = t_interval(paired)
        verdict = "worse" if low > 0 else "noise"
        rows.append(
            f"<tr><th>{load:g}</th><td class='text'>{escape(name)}</td>"
            f"<td class='text'>{escape(best)}</td><td>{sum(paired) / len(paired):+.3g}</td>"
            f"<td>[{low:+.3g}, {high:+.3g}]</td><td class='text {verdict}'>{verdict}</td></tr>"
        )
    return rows
