"""``motley whatif``: another fleet or policy under your own recorded traffic."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from router.cli.learned import LearnedOption, read_known
from router.cli.output import write_text
from router.domain.errors import ConfigError

if TYPE_CHECKING:
    from router.config.load import MotleyConfig
    from simulator.traces.columns import Trace
    from simulator.whatif.bill import Bill, Line
    from simulator.whatif.study import Study

_CHANGE, _TRAFFIC, _OUT = "What changes", "The traffic", "Output"
RECORDER = "recorder"


def whatif(
    fleet: Annotated[Path, typer.Option(help="Fleet file (YAML): the world as it is.")],
    source: Annotated[
        str,
        typer.Option(
            "--from",
            help="recorder: what telemetry.record of the fleet file wrote; or a record's "
            "directory, a trace file, a built-in workload.",
            rich_help_panel=_TRAFFIC,
        ),
    ] = RECORDER,
    last: Annotated[
        float | None,
        typer.Option(help="Only the last so many seconds of it.", rich_help_panel=_TRAFFIC),
    ] = None,
    add: Annotated[
        list[str] | None,
        typer.Option(
            help=r"GPU\[xTP]\[:COUNT]\[/ENGINE] to add, as in t4x2:2 (repeatable).",
            rich_help_panel=_CHANGE,
        ),
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option(
            help="A backend, or GPU[:COUNT], to remove, as in v100 (repeatable).",
            rich_help_panel=_CHANGE,
        ),
    ] = None,
    policy: Annotated[str, typer.Option(help="Another policy.", rich_help_panel=_CHANGE)] = "",
    load: Annotated[float, typer.Option(help="Traffic times this.", rich_help_panel=_CHANGE)] = 1.0,
    seeds: Annotated[int, typer.Option(min=1, help="Replays in each world.")] = 3,
    model_error: Annotated[
        float, typer.Option(help="How wrong the router believes each speed to be.")
    ] = 0.2,
    learned: LearnedOption = None,
    json_path: Annotated[
        str | None,
        typer.Option("--json", metavar="PATH|-", help="Write JSON.", rich_help_panel=_OUT),
    ] = None,
    progress: Annotated[
        Literal["bar", "lines", "none"],
        typer.Option(help="lines: JSON lines on standard error.", rich_help_panel=_OUT),
    ] = "bar",
) -> None:
    """What if the fleet, the policy or the load were another, under [bold]your own traffic[/bold]?

    Replays the recorded requests in the simulator, as the fleet is and as it would be, with the
    same seeds, and tells what changes, how sure that is, and what it costs.

    Examples: [bold]motley whatif --fleet fleet.yaml --add t4x2:2 --remove v100[/bold],
    [bold]motley whatif --fleet fleet.yaml --policy least-request --last 3600[/bold]
    """
    from router.config.load import load_config
    from simulator.options import ReplayOptions
    from simulator.report.outputs import check_place
    from simulator.whatif.change import Change
    from simulator.whatif.study import what_if

    if last is not None and not last > 0.0:
        raise ConfigError(f"--last must be above 0 seconds, not {last:g}")
    if json_path not in (None, "-"):
        check_place(Path(json_path or ""))
    change = Change(tuple(add or ()), tuple(remove or ()), policy, load)
    config = load_config(fleet)
    known = read_known(learned)
    trace, note = _traffic(source, last, config)
    if note:
        typer.echo(note, err=True)
    with_progress = {"bar": _bar, "lines": _lines, "none": _none}[progress]
    options = ReplayOptions(model_error=model_error)
    study = with_progress(
        lambda report: what_if(
            trace, config, change, options, seeds=seeds, learned=known, progress=report
        )
    )
    if json_path == "-":
        typer.echo(json.dumps(study.document()))
        return
    if json_path is not None:
        write_text(json_path, json.dumps(study.document(), indent=2) + "\n")
    show(study)


def _traffic(source: str, last_s: float | None, config: MotleyConfig) -> tuple[Trace, str]:
    from simulator.synthetic import is_builtin
    from simulator.whatif.traffic import recorded
    from simulator.workload import TraceSpec, build_trace

    if source == RECORDER:
        record = config.telemetry.record
        if record is None:
            raise ConfigError(
                "nothing is recorded: set telemetry.record.directory in the fleet file, serve "
                "for a while, and ask again; or name a trace with --from"
            )
        source = record.directory
        if not Path(source).exists():
            raise ConfigError(
                f"nothing has been recorded yet: {source} (telemetry.record.directory) is not "
                "there; serve some traffic first, or give a trace with --from"
            )
    if is_builtin(source):
        return build_trace(TraceSpec(source, duration_s=last_s), 0)[0], ""
    return recorded(Path(source), last_s)


Run = Callable[[Callable[[float, str], object]], "Study"]


def _bar(run: Run) -> Study:
    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)
        return run(lambda share, what: bar.update(task, completed=share, description=what))


def _lines(run: Run) -> Study:
    def report(share: float, what: str) -> None:
        line = json.dumps({"share": round(share, 4), "what": what})
        print(line, file=sys.stderr, flush=True)

    return run(report)


def _none(run: Run) -> Study:
    return run(lambda *_: None)


def show(study: Study) -> None:
    """Print the answer for people."""
    console = Console(highlight=False)
    minutes = study.span_s / 60
    span = f"{minutes:.0f} minutes" if minutes >= 2 else f"{study.span_s:.0f} s"
    table = Table(
        title=f"{study.requests:,} requests over {span}, {study.seeds} replays each",
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    for name in ("", "now", "then", "change", "95 % interval", ""):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for line in study.lines:
        table.add_row(*_cells(line))
    for row in _costs(study.bill_now, study.bill_then):
        table.add_row(*row)
    console.print(f"now:  {_fleet(study.fleet_now)}, {study.policy_now}")
    console.print(f"then: {_fleet(study.fleet_then)}, {study.policy_then}")
    console.print(table)
    for note in study.notes:
        console.print(f"note: {note}")


_COLORS = {"better": "green", "worse": "red", "noise": "dim"}


def _cells(line: Line) -> tuple[str, ...]:
    def text(value: float | None, sign: str = "") -> str:
        if value is None:
            return "-"
        told = {
            "share": f"{value * 100:{sign}.1f} %",
            "per_s": f"{value:{sign}.3g}/s",
            "usd": f"{value:{sign}.2f}",
        }
        digits = ".2g" if sign else ".3g"
        small = abs(value) < 0.1
        seconds = f"{value * (1000 if small else 1):{sign}{digits}} {'ms' if small else 's'}"
        return told.get(line.unit, seconds)

    between = f"{text(line.low, '+')} to {text(line.high, '+')}"
    color = _COLORS[line.verdict]
    return (
        line.name,
        text(line.now),
        text(line.then),
        text(line.change, "+"),
        between,
        f"[{color}]{line.verdict}[/{color}]",
    )


def _costs(now: Bill, then: Bill) -> list[tuple[str, ...]]:
    def money(value: float | None) -> str:
        return "-" if value is None else f"${value:,.2f}"

    return [
        ("$ per hour", money(now.usd_per_hour), money(then.usd_per_hour), "", "", ""),
        ("lost", str(now.lost), str(then.lost), "", "", ""),
    ]


def _fleet(kinds: dict[str, Any]) -> str:
    return ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
