"""``motley sweep``: policies x loads x fleets x traces x seeds, and the load each can hold."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from router.cli.learned import LearnedOption, read_known
from router.cli.output import write_json

if TYPE_CHECKING:
    from simulator.sweep.executors import Executor
    from simulator.sweep.spec import SweepSpec
    from simulator.sweep.store import Store
    from simulator.sweep.sweep import SweepResult


def sweep(
    spec: Annotated[Path, typer.Argument(help="Sweep file (YAML).")],
    address: Annotated[
        str | None, typer.Argument(help="With --ray: address of a cluster; empty starts one here.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of finished runs; by default beside the file, ending in .sweep."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at once; by default one per core.")
    ] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Run on Ray instead: --ray, or --ray ADDRESS.")
    ] = False,
    retries: Annotated[int, typer.Option(min=0, help="How often a failed run is tried again.")] = 1,
    learned: LearnedOption = None,
    json_path: Annotated[
        str | None, typer.Option("--json", help="Write the figures as JSON; - is stdout.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page of plots.")] = None,
) -> None:
    """Cross policies with loads, fleets, traces and seeds, and find the load each can hold.

    Finished runs are kept on disk, so an interrupted sweep goes on where it stopped; a run whose
    settings, files or Motley version changed is done again. With [bold]refine[/bold] in the file
    the interval between the last load that holds and the first that does not is halved.

    The file has [bold]traces, fleets, policies[/bold] (lists) and, if wanted, [bold]loads, seeds,
    slo_attainment, refine, trace_options, options, faults, learned[/bold]. A small one:

    {traces: \\[azure-conv-like], fleets: \\[fleet.yaml], policies: \\[motley, least-request],
    loads: \\[1, 2, 3], seeds: 3, refine: 3}
    """
    from simulator.report.outputs import check_html, check_place
    from simulator.sweep.spec import load_spec
    from simulator.sweep.store import Store

    if json_path not in (None, "-"):
        check_place(Path(json_path or ""))
    if html is not None:
        check_html(html)
    asked = load_spec(spec)
    if learned is not None:
        asked = replace(asked, learned=learned)
    check_sweep(asked)
    store = Store(out or spec.with_suffix(".sweep"))
    with ExitStack() as stack:
        execute = _executor(stack, jobs, address, ray=ray)
        result = _run(asked, store, execute, retries)
    _report(result, json_path, html)
    if result.failures:
        raise typer.Exit(1)


def check_sweep(spec: SweepSpec) -> None:
    """Refuse what no run could use, before the first one starts.

    Raises:
        BadInputError: a fleet, trace, timeline or file of what was learned that cannot be used.
    """
    from router.config.load import load_config
    from simulator.faults import check_backends, load_faults
    from simulator.run import check_trace
    from simulator.workload import build_trace

    read_known(spec.learned)
    configs = [load_config(fleet) for fleet in spec.fleets]
    faults = load_faults(spec.faults) if spec.faults else []
    for config in configs:
        check_backends(faults, (backend.name for backend in config.fleet.backends))
    for trace in spec.traces:
        built, _ = build_trace(trace, spec.seeds[0])
        for config in configs:
            check_trace(built, config)


def _executor(stack: ExitStack, jobs: int | None, address: str | None, *, ray: bool) -> Executor:
    from router.domain.errors import ConfigError
    from simulator.sweep.cell import run_cell
    from simulator.sweep.executors import LocalPool, RayPool

    if not ray:
        if address is not None:
            raise ConfigError(f"{address!r}: an address goes with --ray, as in --ray {address}")
        return LocalPool(jobs or os.cpu_count() or 1, run_cell)
    pool = RayPool(address, jobs, run_cell)
    stack.callback(pool.close)
    return pool


def _run(spec: SweepSpec, store: Store, execute: Executor, retries: int) -> SweepResult:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from simulator.sweep.sweep import Sweep

    console = Console(stderr=True)
    columns = (
        BarColumn(),
        TextColumn("{task.completed}/{task.total} runs"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", style="dim"),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=None)

        def progress(done: int, known: int, what: str) -> None:
            bar.update(task, completed=done, total=known, description=what)

        try:
            result = Sweep(spec, store, execute, retries=retries, progress=progress).run()
        except KeyboardInterrupt:
            console.print("interrupted; what is finished is kept, run it again to go on")
            raise
    if result.resumed:
        console.print(f"{result.resumed} runs were done already", style="dim", highlight=False)
    return result


def _report(result: SweepResult, json_path: str | None, html: Path | None) -> None:
    from rich.console import Console

    from simulator.report.frontier import frontier_table, write_sweep_page
    from simulator.report.outputs import writing
    from simulator.sweep.sweep import sweep_json

    if html is not None:
        with writing(html):
            write_sweep_page(result, html)
    if json_path is not None:
        write_json(sweep_json(result), json_path)
    if json_path != "-":
        Console(highlight=False).print(frontier_table(result))
