"""The evidence as one HTML page: each policy against least request, scenario by scenario."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.policies.tables import (
    PEERS,
    WEIGHTED,
    Result,
    Runs,
    attainment,
    by_scenario,
    class_table,
    guard_sentences,
    interval,
    log_ratios,
    middle,
    names_of,
    runs_of,
    workload_table,
)
from simulator.report.style import CSS

WHICH = ("P99 TTFT", "P99 E2E")
OURS, THEIRS, SHOWN = "#2563eb", "#94a3b8", "#d97706"
RATIO, SECONDS = "ratio to least request, same arrivals (bar: mean)", "motley blue, nginx orange"


def write_page(results: Sequence[Result], path: Path) -> None:
    """Write the page; results as ``run.py`` keeps them, of several policies."""
    runs = runs_of(results)
    seeds = len({result["seed"] for result in results})
    told = "1 seed" if seeds == 1 else f"{seeds} seeds"
    sections = [
        ("Against least request", _svg(_spread(runs)), "Each dot is a scenario; left is better."),
        (
            "Paired differences",
            _intervals(runs),
            "Geometric mean of the ratio on the same arrivals and its 95 % interval: bootstrap "
            "over scenarios and, within each, seeds.",
        ),
        ("Within the targets", _svg(_met(results)), "Mean over all scenarios and seeds."),
        ("Every scenario", _svg(_scatter(runs)), "P99 in seconds, logarithmic, mean over seeds."),
        ("The best peer of each", _markdown(guard_sentences(runs)), ""),
        ("By workload, fleet and load", _markdown(workload_table(results)), ""),
        (
            "Service classes",
            _markdown(class_table(results, names_of(runs))),
            "Mean over fleets, loads and seeds. Motley's queue honours the classes; the peers have "
            "none and are as they are. 'By class': the peer's policy behind Motley's queue.",
        ),
    ]
    body = "".join(
        f"<details open><summary>{escape(title)}</summary>{content}"
        f'<p class="quiet">{escape(note)}</p></details>'
        for title, content, note in sections
        if content
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Motley: the evidence</title>"
        f"<style>{CSS}</style><main><header><p class=brand>motley</p>"
        f"<h1>Every policy on {len(runs)} scenarios</h1><p>{told}; a belief 25 % wrong, "
        f"scrapes as old as each router's, predicted lengths.</p></header>{body}</main></html>",
        encoding="utf-8",
    )


def _spread(runs: Runs) -> Figure:
    names = names_of(runs)
    names.sort(key=lambda name: -middle(log_ratios(runs, name, "least-request", 1)))
    drawn = Figure(figsize=(12, 0.32 * len(names) + 1.2), layout="constrained")
    for which, axes in enumerate(drawn.subplots(1, 2, sharey=True)):
        for height, name in enumerate(names):
            logs = log_ratios(runs, name, "least-request", which)
            values = by_scenario(logs)
            colour = OURS if name == "motley" else THEIRS
            axes.scatter(values, [height] * len(values), s=14, alpha=0.6, color=colour)
            axes.scatter([middle(logs)], [height], marker="|", s=160, color=SHOWN)
        axes.axvline(1.0, color="#64748b", linewidth=0.8)
        _logarithmic(axes)
        axes.set_title(f"{WHICH[which]}, {RATIO}", fontsize=10)
        axes.set_yticks(range(len(names)), names)
    return drawn


def _met(results: Sequence[Result]) -> Figure:
    met = attainment(results)
    names = sorted(names_of(runs_of(results)), key=met.__getitem__)
    drawn = Figure(figsize=(12, 0.26 * len(names) + 1.0), layout="constrained")
    axes = drawn.subplots()
    colours = [OURS if name == "motley" else THEIRS for name in names]
    axes.barh(names, [100 * met[name] for name in names], color=colours)
    axes.set_xlabel("requests within the targets of their class, % (goodput: this of what arrived)")
    return drawn


def _scatter(runs: Runs) -> Figure:
    labels = list(runs)
    drawn = Figure(figsize=(12, 0.26 * len(labels) + 1.2), layout="constrained")
    for which, axes in enumerate(drawn.subplots(1, 2, sharey=True)):
        for height, label in enumerate(reversed(labels)):
            means = _means(runs, label, which)
            peers = [value for name, value in means.items() if name in PEERS]
            axes.scatter(peers, [height] * len(peers), s=12, color=THEIRS)
            for name, size, colour in ((WEIGHTED, 26, SHOWN), ("motley", 40, OURS)):
                if name in means:
                    axes.scatter([means[name]], [height], s=size, color=colour)
        _logarithmic(axes)
        axes.set_title(f"{WHICH[which]}, s: {SECONDS}, others grey", fontsize=10)
        axes.set_yticks(range(len(labels)), list(reversed(labels)))
        axes.set_ylim(-0.7, len(labels) - 0.3)
        axes.grid(axis="x", color="#e2e8f0")
    return drawn


def _means(runs: Runs, label: str, which: int) -> dict[str, float]:
    seeds = list(runs[label].values())
    names = seeds[0].keys()
    return {n: sum(row[n][which] for row in seeds if n in row) / len(seeds) for n in names}


def _logarithmic(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}"))


def _intervals(runs: Runs) -> str:
    rows = ""
    for name in names_of(runs):
        if name == "motley":
            continue
        cells = ""
        for which in (0, 1):
            logs = log_ratios(runs, "motley", name, which)
            low, high = interval(logs)
            cells += f"<td>{middle(logs):.2f}</td><td>{low:.2f} to {high:.2f}</td>"
        rows += f"<tr><td class=text>{escape(name)}</td>{cells}</tr>"
    return (
        "<div class=scroll><table><thead><tr><th class=text>motley against</th><th>P99 TTFT</th>"
        "<th>95 %</th><th>P99 E2E</th><th>95 %</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _markdown(text: str) -> str:
    """The tables and lists of ``tables.py`` as HTML."""
    lines = text.replace("`", "").split("\n")
    if not text.startswith("|"):
        items = "".join(f"<li>{escape(line.removeprefix('- '))}</li>" for line in lines[1:])
        return f"<ul>{items}</ul>"
    head, _, *body = (line.strip("| ").split(" | ") for line in lines)
    titles = _cells("th", head)
    rows = "".join(f"<tr>{_cells('td', row)}</tr>" for row in body)
    return (
        f"<div class=scroll><table><thead><tr>{titles}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _cells(tag: str, texts: Sequence[str]) -> str:
    first, *others = (escape(text) for text in texts)
    return f"<{tag} class=text>{first}</{tag}>" + "".join(f"<{tag}>{o}</{tag}>" for o in others)


def _svg(drawn: Figure) -> str:
    with mpl.rc_context({"svg.hashsalt": "motley", "svg.fonttype": "none"}):
        buffer = io.StringIO()
        drawn.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
