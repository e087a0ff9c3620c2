"""``motley validate``: a live engine and its simulated twin, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from router.cli import live
from router.cli.output import write_text

if TYPE_CHECKING:
    from simulator.live.client import EngineClient
    from simulator.live.document import Known
    from simulator.live.probe import ProbeOptions
    from simulator.live.session import Target
    from simulator.live.validation import ReplayPlan, Validation

_ENGINE, _REPLAY = "The live engine", "The replay"


def validate(
    url: Annotated[str, typer.Option(help="The live engine, as in http://host:8000.")],
    gpu: Annotated[str, typer.Option(help="Which card it runs on (cpu: none).")],
    trace: Annotated[
        str, typer.Argument(help="A trace file, or a built-in workload such as azure-code-like.")
    ] = "azure-conv-like",
    calibration: Annotated[
        Path | None,
        typer.Option(help="What motley calibrate --url wrote; measured anew without it."),
    ] = None,
    json_path: Annotated[
        str | None, typer.Option("--json", metavar="PATH|-", help="Write JSON ('-': stdout).")
    ] = None,
    minutes: Annotated[
        float, typer.Option(help="How much to replay.", rich_help_panel=_REPLAY)
    ] = 2.0,
    load: Annotated[
        float,
        typer.Option(
            help="Offered work as a share of what the engine can do with a full batch.",
            rich_help_panel=_REPLAY,
        ),
    ] = 0.5,
    rate_scale: Annotated[
        float | None,
        typer.Option(help="Divide all times by this, instead of --load.", rich_help_panel=_REPLAY),
    ] = None,
    scale_lengths: Annotated[
        float,
        typer.Option(
            help="Multiply all lengths by this, for a small engine.", rich_help_panel=_REPLAY
        ),
    ] = 1.0,
    start: Annotated[
        float, typer.Option(help="Skip this many seconds of the trace.", rich_help_panel=_REPLAY)
    ] = 0.0,
    repeat: Annotated[
        int,
        typer.Option(
            min=1,
            help="Replay live this often: shows how much the engine differs from itself.",
            rich_help_panel=_REPLAY,
        ),
    ] = 1,
    model: live.ModelName = "",
    tensor_parallel: Annotated[
        int, typer.Option(min=1, help="Its cards.", rich_help_panel=_ENGINE)
    ] = 1,
    max_num_seqs: live.SeqsOption = None,
    max_num_batched_tokens: live.ChunkOption = None,
    kv_tokens: live.KvOption = None,
    api_key: live.KeyOption = "",
    force: live.ForceOption = False,
    timeout: live.TimeoutOption = 120.0,
    seconds: live.SecondsOption = 120.0,
    max_concurrency: live.ConcurrencyOption = 16,
    max_prompt_tokens: live.PromptOption = 2048,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the probe, the workload and the prompts.")
    ] = 0,
) -> None:
    """Replay a short trace against a live engine and its simulated twin, side by side.

    Sends the engine the trace, open loop, with exactly the trace's lengths; measures its speed
    before, between and after the replays (as [bold]motley calibrate --url[/bold] does); and
    replays the same arrivals in the simulator. Prints the error of every percentile.

    [bold]motley validate --url http://127.0.0.1:8000 --gpu a100-80 --minutes 5 --repeat 2[/bold]
    """
    from simulator.live.document import document
    from simulator.live.validation import ReplayPlan
    from simulator.live.workload import Scaling
    from simulator.workload import TraceSpec, build_trace

    where = live.target(
        gpu,
        tensor_parallel,
        "",
        model,
        max_num_seqs,
        max_num_batched_tokens,
        kv_tokens,
        force,
    )
    options = live.probe_options(seconds, max_concurrency, max_prompt_tokens, seed)
    recorded, _ = build_trace(TraceSpec(trace, start_s=start), seed)
    scaling = Scaling(minutes, load, rate_scale, scale_lengths)
    plan = ReplayPlan(recorded, scaling, repeat, live.new_salt())

    async def use(client: EngineClient, report: live.Report) -> tuple[Known, Validation]:
        return await _validated(client, where, options, calibration, plan, report)

    known, done = live.talk(url, api_key, timeout, use)
    if json_path is not None:
        _write(json_path, json.dumps(document(known, done), indent=2))
    if json_path != "-":
        _print(known, done)


async def _validated(
    client: EngineClient,
    where: Target,
    options: ProbeOptions,
    calibration: Path | None,
    plan: ReplayPlan,
    report: live.Report,
) -> tuple[Known, Validation]:
    """With the engine's iteration from a file, or measured around the replay."""
    from simulator.live.document import Known
    from simulator.live.export import cost_from
    from simulator.live.session import find
    from simulator.live.validation import measure_and_validate
    from simulator.live.validation import validate as side_by_side

    if calibration is not None:
        setup = await find(client, where)
        cost = cost_from(calibration, setup)
        return Known(setup, cost, None), await side_by_side(client, setup, cost, plan, report)
    measured, done = await measure_and_validate(client, where, options, plan, report)
    return Known(measured.setup, measured.fit.cost, measured.fit), done


def _write(path: str, text: str) -> None:
    if path == "-":
        typer.echo(text)
        return
    write_text(path, text + "\n")


def _print(known: Known, done: Validation) -> None:
    console = Console(highlight=False)
    if known.fit is not None:
        console.print(live.error_table(known.fit))
    spec = known.setup.spec
    table = Table(
        title=f"{spec.engine} {spec.engine_version}, {spec.model} on {spec.gpu}: "
        f"{len(done.trace)} requests of {done.trace.name} in {done.trace.span_s:.0f} s",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("latency")
    for name in ("real s", "simulated s", "error %", "90 % interval", "live itself ± %"):
        table.add_column(name, justify="right")
    for row in done.rows:
        table.add_row(
            f"{row.metric} P{row.quantile:g}",
            f"{row.real_s:.4g}",
            f"{row.twin_s:.4g}",
            f"{row.error_percent:+.1f}",
            f"{row.low_percent:+.1f} to {row.high_percent:+.1f}",
            "" if row.spread_percent is None else f"{row.spread_percent:.1f}",
        )
    console.print(table)
    if done.drift_percent is not None:
        console.print(
            f"- the engine itself was {done.drift_percent:.1f} % slower in its slowest probe than "
            "in its fastest"
        )
    for note in (*done.notes, *known.setup.assumed):
        console.print(f"- {note}")
