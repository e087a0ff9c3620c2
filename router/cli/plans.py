"""``motley plans``: what the gateway's planner did, and whether it expected what came."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Group

    from router.gateway.plan_history import PlanRow


def plans(
    history: Annotated[Path, typer.Argument(help="The file that planner.history names.")],
    newest: Annotated[int, typer.Option(min=1, help="How many, counted from the newest.")] = 20,
    json_path: Annotated[
        str | None, typer.Option("--json", help="Write them as JSON; - is stdout.")
    ] = None,
) -> None:
    """Show the plans that a gateway made: why, for what load, with what delay expected and actual.

    Example: [bold]motley plans motley-plans.sqlite[/bold]
    """
    from router.cli.plan import show
    from router.gateway.plan_history import read_history

    rows = read_history(history, newest=newest)
    show({"plans": [asdict(row) for row in rows]}, lambda: _table(rows), json_path)


def _table(rows: Sequence[PlanRow]) -> Group:
    from rich.box import SIMPLE
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Plans, newest last", title_justify="left", box=SIMPLE)
    table.padding = (0, 1, 0, 0)
    table.caption = "day and time in UTC; solve, expected and actual mean E2E in seconds"
    table.add_column("time", no_wrap=True)
    for name in ("plan of", "reason", "outcome"):
        table.add_column(name, no_wrap=True)
    for name in ("req/s", "solve", "expected", "actual"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        rate = sum(one["rate_per_s"] for one in row.inputs.get("classes", ()))
        table.add_row(
            _time(row),
            row.kind,
            row.reason,
            row.outcome,
            f"{rate:.2f}",
            _seconds(row.solve_s, 3),
            _seconds(row.expected_e2e_s, 2),
            _seconds(row.actual_e2e_s, 2),
        )
    failures = [Text(f"{_time(row)}: {row.failure}") for row in rows if row.failure]
    return Group(table, *failures)


def _time(row: PlanRow) -> str:
    return datetime.fromtimestamp(row.at_unix_s, UTC).strftime("%d %H:%M:%S")


def _seconds(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
