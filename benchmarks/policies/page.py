"""The evidence as one HTML page: each policy against least request, scenario by scenario."""

from __future__ import annotations

import io
from collections.abc import Iterable
from html import escape
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.policies.tables import Figures, Result, figures, paired_intervals, ratios
from simulator.report.style import CSS

WHICH = ("P99 TTFT", "P99 E2E")
OURS, THEIRS, SHOWN = "#2563eb", "#94a3b8", "#d97706"


def write_page(results: Iterable[Result], path: Path) -> None:
    """Write the page; results as ``run.py`` keeps them, of several policies."""
    known = list(results)
    table = figures(known)
    sections = [
        ("Against least request", _svg(_spread(table)), "Each dot is a scenario; left is better."),
        ("Scenario by scenario", _svg(_scatter(table)), "P99 in seconds, logarithmic."),
        ("Paired differences", _intervals(known), "Per seed, same arrivals; 95 % intervals."),
    ]
    body = "".join(
        f"<details open><summary>{escape(title)}</summary>{content}"
        f'<p class="quiet">{escape(note)}</p></details>'
        for title, content, note in sections
    )
    path.write_text(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Motley: the evidence</title>"
        f"<style>{CSS}</style><main><header><p class=brand>motley</p>"
        f"<h1>Every policy on {len(table)} scenarios</h1></header>{body}</main></html>",
        encoding="utf-8",
    )


def _spread(table: Figures) -> Figure:
    names = list(dict.fromkeys(name for row in table.values() for name in row))
    names.sort(key=lambda name: -_middle(ratios(table, name, "least-request", 1)))
    drawn = Figure(figsize=(12, 0.32 * len(names) + 1.2), layout="constrained")
    for which, axes in enumerate(drawn.subplots(1, 2, sharey=True)):
        for height, name in enumerate(names):
            values = ratios(table, name, "least-request", which)
            colour = OURS if name == "motley" else THEIRS
            axes.scatter(values, [height] * len(values), s=14, alpha=0.6, color=colour)
            axes.scatter([_middle(values)], [height], marker="|", s=160, color=SHOWN)
        axes.axvline(1.0, color="#64748b", linewidth=0.8)
        axes.set_xscale("log")
        axes.set_title(f"{WHICH[which]}, ratio to least request (bar: median)")
        axes.set_yticks(range(len(names)), names)
    return drawn


def _scatter(table: Figures) -> Figure:
    labels = list(table)
    drawn = Figure(figsize=(12, 0.26 * len(labels) + 1.2), layout="constrained")
    for which, axes in enumerate(drawn.subplots(1, 2, sharey=True)):
        for height, label in enumerate(reversed(labels)):
            row = table[label]
            peers = [pair[which] for name, pair in row.items() if name != "motley"]
            axes.scatter(peers, [height] * len(peers), s=12, color=THEIRS)
            if "nginx-least-conn" in row:
                axes.scatter([row["nginx-least-conn"][which]], [height], s=26, color=SHOWN)
            if "motley" in row:
                axes.scatter([row["motley"][which]], [height], s=40, color=OURS)
        axes.set_xscale("log")
        axes.set_title(f"{WHICH[which]}: motley blue, nginx orange, others grey")
        axes.set_yticks(range(len(labels)), list(reversed(labels)))
        axes.grid(axis="x", color="#e2e8f0")
    return drawn


def _intervals(results: list[Result]) -> str:
    rows = "".join(
        f"<tr><td class=text>{escape(name)}</td>"
        + "".join(f"<td>{low:.2f} to {high:.2f}</td>" for low, high in pair)
        + "</tr>"
        for name, pair in paired_intervals(results).items()
    )
    return (
        "<div class=scroll><table><thead><tr><th class=text>motley against</th><th>P99 TTFT</th>"
        f"<th>P99 E2E</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _svg(drawn: Figure) -> str:
    with mpl.rc_context({"svg.hashsalt": "motley", "svg.fonttype": "none"}):
        buffer = io.StringIO()
        drawn.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
