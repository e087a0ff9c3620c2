"""What each service class got, as a table in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import compress
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from simulator.report.words import seconds
from simulator.summary import Summary

_HEADS = (
    *("class", "arrived", "lost", "SLO\nmet", "good\n/s", "QoE"),
    *("TTFT\np99", "TPOT\np99", "wait\np99"),
)
_ROOMY = frozenset({"good\n/s", "wait\np99"})
"""Shown where there is room."""


def has_classes(summaries: Sequence[Summary]) -> bool:
    """Whether any run saw more than one class."""
    return any(len(summary["classes"]) > 1 for summary in summaries)


def class_rows(summary: Summary) -> list[tuple[str, ...]]:
    """One row per class of a run, as text."""
    return [_row(name, figures) for name, figures in summary["classes"].items()]


def classes_table(summaries: Sequence[Summary], *, wide: bool = False) -> Table:
    """The table for a terminal: every class of every policy a line.

    Args:
        summaries: one per policy.
        wide: with the figures of ``_ROOMY``. Without, all that is shown is whole in 80 columns,
            but for long names of policies.
    """
    shown = [wide or head not in _ROOMY for head in _HEADS]
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    table.add_column("policy", no_wrap=True, max_width=40 if wide else 18)
    table.add_column(_HEADS[0], no_wrap=True)
    for head in compress(_HEADS[1:], shown[1:]):
        table.add_column(head, justify="right", no_wrap=True)
    for summary in summaries:
        name = str(summary["policy"])
        for row in class_rows(summary):
            table.add_row(Text(name), *compress(row, shown))
            name = ""
    return table


def classes_html(summaries: Sequence[Summary]) -> tuple[str, list[str]]:
    """Head and rows for the page."""
    figures = "".join(f"<th>{escape(name).replace(chr(10), ' ')}</th>" for name in _HEADS[1:])
    head = f"<tr><th>policy</th><th class='text'>{_HEADS[0]}</th>{figures}</tr>"
    rows = []
    for summary in summaries:
        for row in class_rows(summary):
            cells = "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
            rows.append(
                f"<tr><th>{escape(str(summary['policy']))}</th>"
                f"<td class='text'>{escape(row[0])}</td>{cells}</tr>"
            )
    return head, rows


def _row(name: str, figures: dict[str, Any]) -> tuple[str, ...]:
    lost = figures["rejected"] + figures["failed"] + figures["cancelled"]
    qoe = figures["qoe_mean"]
    return (
        name,
        f"{figures['arrived']:.0f}",
        f"{lost:.0f}",
        f"{100 * figures['slo_attainment']:.1f}%",
        f"{figures['goodput_per_s']:.2f}",
        "-" if qoe is None else f"{qoe:.3f}",
        seconds(figures["ttft_s"]["p99"]),
        seconds(figures["tpot_s"]["p99"]),
        seconds(figures["waited_s"]["p99"]),
    )
