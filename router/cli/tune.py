"""``motley tune``: finds weights of the plan by planning and simulating, unattended."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from router.cli.workload_options import (
    ClassesOption,
    DurationOption,
    FormatOption,
    ModelOption,
    ModelsOption,
    RateScaleOption,
    StartOption,
    StrictOption,
    trace_spec,
)

if TYPE_CHECKING:
    from simulator.tuning.study import Progress, Together
    from simulator.tuning.trial import Measured, Trials

_GOAL, _SEARCH = "What counts", "Search"


def tune(
    workload: Annotated[
        str, typer.Option(help="What to tune for: a trace file, or a built-in, as azure-conv-like.")
    ],
    fleet: Annotated[
        Path,
        typer.Option(help="Fleet file (YAML): its cards are the stock, its weights are tried."),
    ],
    write: Annotated[
        bool,
        typer.Option("--write", help="Write better weights into the fleet file's planner section."),
    ] = False,
    json_path: Annotated[
        str | None, typer.Option("--json", help="Write the outcome as JSON; - is stdout.")
    ] = None,
    format_name: FormatOption = None,
    strict: StrictOption = False,
    rate_scale: RateScaleOption = 1.0,
    start: StartOption = 0.0,
    duration: DurationOption = None,
    model: ModelOption = None,
    models: ModelsOption = "",
    classes: ClassesOption = "",
    seed: Annotated[int, typer.Option(help="Seed of everything drawn.")] = 0,
    target: Annotated[
        float,
        typer.Option(help="Share of requests that must meet their SLO.", rich_help_panel=_GOAL),
    ] = 0.99,
    usd_per_kwh: Annotated[
        float, typer.Option(help="Price of electricity.", rich_help_panel=_GOAL)
    ] = 0.15,
    wait_usd_per_hour: Annotated[
        float,
        typer.Option(help="What an hour of one user's waiting is worth.", rich_help_panel=_GOAL),
    ] = 0.0,
    trials: Annotated[
        int, typer.Option(min=1, help="In all, earlier runs included.", rich_help_panel=_SEARCH)
    ] = 40,
    study: Annotated[
        Path,
        typer.Option(
            help="SQLite file to keep trials in and resume from.", rich_help_panel=_SEARCH
        ),
    ] = Path("motley-tune.sqlite"),
    held_back: Annotated[
        float,
        typer.Option(
            "--hold-back",
            help="Share of the trace, at its end, that weights are judged by and not chosen by.",
            rich_help_panel=_SEARCH,
        ),
    ] = 0.3,
    time_limit: Annotated[
        float, typer.Option(help="Seconds for each plan.", rich_help_panel=_SEARCH)
    ] = 5.0,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Trials at once; by default one, on Ray two per core.",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Measure trials on this Ray cluster: an address, auto, or local to start one.",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
) -> None:
    """Find the weights whose plan is cheapest while the targets hold in simulation.

    Weights are chosen by the beginning of the trace and judged by its end, beside the weights
    that the file has now; they are taken only if they are better there. Interrupt it and run it
    again: it goes on where it was.

    Example: [bold]motley tune --workload trace.csv --fleet fleet.yaml --write[/bold]

    Several trials at once (--jobs, --ray) are chosen without knowing of each other: the same
    time finds more, the same number of trials a little less.
    """
    from router.cli.output import show
    from router.config.edit import write_weights
    from router.config.load import load_config
    from simulator.tuning.choose import Goal
    from simulator.tuning.slices import hold_back
    from simulator.tuning.study import RANGES
    from simulator.tuning.study import tune as search
    from simulator.tuning.trial import Trials
    from simulator.workload import build_trace

    config = load_config(fleet)
    goal = Goal(target, usd_per_kwh, wait_usd_per_hour)
    spec = trace_spec(
        workload,
        format_name=format_name,
        strict=strict,
        rate_scale=rate_scale,
        start=start,
        duration=duration,
        model=model,
        models=models,
        classes=classes,
    )
    trace, notes = build_trace(spec, seed)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    chosen_by, judged_by = hold_back(trace, held_back)
    current = {k: v for k, v in config.planner.weights.items() if k in RANGES}
    question = repr((spec, seed, held_back, goal, fleet.read_text(encoding="utf-8")))
    trial = Trials(chosen_by, config, time_limit_s=time_limit)
    with _bar() as progress, _elsewhere(trial, jobs, ray) as (together, at_once):
        tuned = search(
            trial,
            goal,
            count=trials,
            current=current,
            path=study,
            name=hashlib.sha256(question.encode()).hexdigest()[:16],
            seed=seed,
            progress=progress,
            together=together,
            jobs=at_once,
        )
    judge = Trials(chosen_by, config, replayed=judged_by, time_limit_s=time_limit)
    before, after = judge.measure(current), judge.measure(tuned.best.weights)
    better = goal.score(after) < goal.score(before)
    outcome = {
        "weights": {k: float(f"{v:.4g}") for k, v in tuned.best.weights.items()},
        "better": better,
        "written": better and write,
        "trials": tuned.trials,
        "resumed": tuned.resumed,
        "chosen_on": {"tuned": asdict(tuned.best)},
        "judged_on": {"current": asdict(before), "tuned": asdict(after)},
        "usd_per_hour": {"current": goal.usd_per_hour(before), "tuned": goal.usd_per_hour(after)},
    }
    if outcome["written"]:
        write_weights(fleet, {**config.planner.weights, **outcome["weights"]})  # type: ignore[dict-item]
    show(outcome, lambda: _view(outcome, before, after, fleet), json_path)


@contextmanager
def _elsewhere(
    trials: Trials, jobs: int | None, ray: str | None
) -> Iterator[tuple[Together | None, int]]:
    """Where trials are measured, and how many at once; ``None`` is right here, one by one."""
    from simulator.sweep.executors import LocalPool, RayPool

    if ray is not None:
        pool = RayPool(None if ray == "local" else ray, jobs, trials.measure)
        try:
            yield pool, pool.jobs
        finally:
            pool.close()
    elif jobs is not None and jobs > 1:
        yield LocalPool(jobs, trials.measure), jobs
    else:
        yield None, 1


@contextmanager
def _bar() -> Iterator[Progress]:
    """A progress bar on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("trial {task.completed:.0f}/{task.total:.0f}"),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=None)

        def progress(done: int, count: int, best: float) -> None:
            said = f"best {best:.2f} $/h" if best < 1e6 else "no trial keeps the target yet"
            bar.update(task, completed=done, total=count, description=said)

        yield progress


def _view(outcome: dict[str, Any], before: Measured, after: Measured, fleet: Path) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title="Judged by the part that was held back", title_justify="left", caption_justify="left"
    )
    table.add_column("weights")
    for name in ("$/h", "kW", "SLO met", "TTFT P99", "E2E P99"):
        table.add_column(name, justify="right")
    for name, one in (("now", before), ("tuned", after)):
        table.add_row(
            name,
            f"{one.usd_per_hour:.2f}",
            f"{one.power_kw:.2f}",
            f"{one.attainment:.2%}",
            f"{one.ttft_p99_s:.2f} s",
            f"{one.e2e_p99_s:.1f} s",
        )
    weights = ", ".join(f"{k}: {v:g}" for k, v in outcome["weights"].items())
    if outcome["written"]:
        told = f"written to {fleet}"
    elif outcome["better"]:
        told = "better; --write puts them into the fleet file"
    else:
        told = "no better than the present ones, which stay"
    lines = f"{outcome['trials']} trials, {outcome['resumed']} of them from earlier runs"
    return Group(table, Text(f"planner: {{weights: {{{weights}}}}}"), Text(told), Text(lines))
