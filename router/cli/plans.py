"""``motley plans``: what the gateway's planner did, and whether it expected what came; and undo."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Group

    from router.gateway.placement.cluster import Cluster
    from router.gateway.plan_history import PlanRow


def plans(
    history: Annotated[
        Path | None, typer.Argument(help="The file that planner.history names.")
    ] = None,
    newest: Annotated[int, typer.Option(min=1, help="How many, counted from the newest.")] = 20,
    json_path: Annotated[
        str | None, typer.Option("--json", help="Write them as JSON; - is stdout.")
    ] = None,
    undo: Annotated[
        bool,
        typer.Option(
            "--undo", help="Kubernetes: scale back to before the newest placement, and hold it."
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Kubernetes: let the planner place again.")
    ] = False,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="The gateway's file, for --undo.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; else it is only shown.")] = False,
) -> None:
    """Show the plans that a gateway made: why, for what load, with what delay expected and actual.

    Examples:

    [bold]motley plans motley-plans.sqlite[/bold]

    [bold]motley plans --undo -c motley.yaml[/bold] (shows what --yes would scale back)
    """
    from router.cli.output import show
    from router.domain.errors import ConfigError

    if undo or resume:
        if config is None:
            raise ConfigError("--undo and --resume need --config: the namespace is in it")
        asyncio.run(_take_back(config, resume=resume, yes=yes))
        return
    if history is None:
        raise ConfigError("which file? planner.history names it, by default motley-plans.sqlite")
    from router.gateway.plan_history import read_history

    rows = read_history(history, newest=newest)
    show({"plans": [asdict(row) for row in rows]}, lambda: _table(rows), json_path)


async def _take_back(path: Path, *, resume: bool, yes: bool) -> None:
    """Undo the newest placement, or let the planner go on."""
    from router.config.load import load_config
    from router.gateway.placement.cluster import Cluster, connect

    config = load_config(path)
    place = config.planner.placement
    cluster = Cluster(await connect(), place.namespace, config.hardware, place.label_selector)
    try:
        await (_resumed(cluster) if resume else _undone(cluster, yes=yes))
    finally:
        await cluster.close()


async def _resumed(cluster: Cluster) -> None:
    from router.gateway.placement.undo import resume

    held = await resume(cluster)
    typer.echo(f"The planner places again: {', '.join(held)}" if held else "Nothing was held.")


async def _undone(cluster: Cluster, *, yes: bool) -> None:
    from router.gateway.placement.undo import difference, undo

    changes = await difference(cluster)
    for name, (now, before) in changes.items():
        typer.echo(f"{name}: {now} -> {before} replicas")
    if not yes:
        typer.echo("Nothing is scaled yet: --yes does it, and holds the planner until --resume.")
        return
    await undo(cluster, lambda line: typer.echo(f"scaled {line}"))
    typer.echo("Back; the planner is held until 'motley plans --resume'.")


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
