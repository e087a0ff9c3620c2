"""``motley accuracy``: how far the iteration model is from measurements."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from router.cli.output import write_text
from router.domain.errors import ConfigError
from router.perf.accuracy import AccuracyReport, accuracy_report
from router.perf.profiles import default_folder

DataOption = Annotated[
    Path | None,
    typer.Option(help="Folder of measured tables; else $MOTLEY_SHARED/data/profiles."),
]
JsonOption = Annotated[
    str | None, typer.Option("--json", metavar="PATH|-", help="Write JSON there ('-': stdout).")
]


NO_TABLES = (
    "Motley does not ship the tables that others measured: name their folder with --data. Which "
    "they are is in docs/pages/explanation/how-fast-an-engine-is.md, and what this command said "
    "of them in the README; your own engines are measured by motley calibrate"
)


def accuracy(data: DataOption = None, json_path: JsonOption = None) -> None:
    """Print the error of the iteration model per engine, GPU and phase.

    Rows [bold]fitted[/bold] show whether the formula can describe an engine, rows
    [bold]held back[/bold] whether it generalizes, rows [bold]priors[/bold] what you get before
    any calibration. Errors are absolute percentage errors; a negative bias means predicted too
    fast.
    """
    if data is not None and not data.is_dir():
        raise ConfigError(f"no folder {data}; name the folder of measured tables with --data")
    folder = data or default_folder()
    if not folder.is_dir():
        raise ConfigError(NO_TABLES)
    report = accuracy_report(folder)
    if json_path == "-":
        typer.echo(_to_json(report))
        return
    if json_path is not None:
        write_text(json_path, _to_json(report) + "\n")
    _print(report)


def _to_json(report: AccuracyReport) -> str:
    return json.dumps(asdict(report), indent=2)


def _print(report: AccuracyReport) -> None:
    console = Console()
    for engine in dict.fromkeys(row.engine for row in report.rows):
        table = Table(title=engine, title_justify="left", title_style="bold", expand=False)
        for name in ("GPU", "phase", "constants"):
            table.add_column(name)
        for name in ("n", "median %", "P95 %", "bias %"):
            table.add_column(name, justify="right")
        last = ""
        for row in (row for row in report.rows if row.engine == engine):
            cards = {0: " (x1 to x8)", 1: ""}.get(row.tensor_parallel, f" x{row.tensor_parallel}")
            gpu = row.gpu + cards
            table.add_row(
                gpu if gpu != last else "",
                row.phase,
                row.split,
                str(row.points),
                f"{row.median_ape:.1f}",
                f"{row.p95_ape:.1f}",
                f"{row.bias:+.1f}",
            )
            last = gpu
        console.print(table)
    console.print("\n[bold]Where the data is thin[/bold]")
    for line in report.thin:
        console.print(f"- {line}", highlight=False)
