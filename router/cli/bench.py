"""``motley bench``: the load test people expect, against any OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

from router.cli import live
from router.domain.errors import BadInputError, MotleyError

if TYPE_CHECKING:
    from simulator.bench.answer import Sample
    from simulator.bench.figures import Figures, Spread
    from simulator.bench.plan import Closed, Job, Open, Target

_LOAD, _REQUEST, _OUT = "The load", "The requests", "The results"

CLASSIC = {"requests": 100, "concurrency": 8, "input_tokens": 2048, "output_tokens": 1024}


def bench(
    url: Annotated[str, typer.Argument(help="The server, as in http://127.0.0.1:8000.")],
    model: Annotated[str, typer.Option(help="Its model; the first it lists, if not given.")] = "",
    requests: Annotated[
        int, typer.Option("--requests", "-n", help="How many.", rich_help_panel=_LOAD)
    ] = 100,
    concurrency: Annotated[
        int,
        typer.Option(
            "--concurrency",
            "-c",
            help="Closed loop: this many users, each with one request at a time.",
            rich_help_panel=_LOAD,
        ),
    ] = 8,
    rate: Annotated[
        float | None,
        typer.Option(help="Open loop: requests per second, instead.", rich_help_panel=_LOAD),
    ] = None,
    burstiness: Annotated[
        float,
        typer.Option(
            help="Of --rate: 0 evenly spaced, 1 Poisson, more is burstier.", rich_help_panel=_LOAD
        ),
    ] = 1.0,
    trace: Annotated[
        str | None,
        typer.Option(
            help="Open loop: times and lengths of a trace file or built-in workload, instead.",
            rich_help_panel=_LOAD,
        ),
    ] = None,
    rate_scale: Annotated[
        float, typer.Option(help="Divide the trace's times by this.", rich_help_panel=_LOAD)
    ] = 1.0,
    classic: Annotated[
        bool,
        typer.Option(
            "--classic",
            help="100 requests, concurrency 8, 2048 tokens in, 1024 out, temperature 0.",
            rich_help_panel=_LOAD,
        ),
    ] = False,
    warm_up: Annotated[
        int,
        typer.Option(min=0, help="Requests before, not counted.", rich_help_panel=_LOAD),
    ] = 2,
    input_tokens: Annotated[
        int, typer.Option(help="Prompt length.", rich_help_panel=_REQUEST)
    ] = 512,
    output_tokens: Annotated[
        int, typer.Option(help="Answer length.", rich_help_panel=_REQUEST)
    ] = 128,
    spread: Annotated[
        float, typer.Option(help="Vary both by this share.", rich_help_panel=_REQUEST)
    ] = 0.0,
    endpoint: Annotated[
        str,
        typer.Option(
            help="chat (words), or completions (token ids: exact lengths).",
            rich_help_panel=_REQUEST,
        ),
    ] = "chat",
    temperature: Annotated[float, typer.Option(help="Sent along.", rich_help_panel=_REQUEST)] = 0.0,
    extra: Annotated[
        str, typer.Option(help="More fields of the body, as JSON.", rich_help_panel=_REQUEST)
    ] = "{}",
    respect_eos: Annotated[
        bool,
        typer.Option("--respect-eos", help="Let answers end early.", rich_help_panel=_REQUEST),
    ] = False,
    label: Annotated[
        str, typer.Option(help="Name of this run in the files.", rich_help_panel=_OUT)
    ] = "",
    csv_path: Annotated[
        Path | None, typer.Option("--csv", help="Append a row there.", rich_help_panel=_OUT)
    ] = None,
    json_path: Annotated[
        str | None,
        typer.Option(
            "--json", metavar="PATH|-", help="Append a line ('-': stdout).", rich_help_panel=_OUT
        ),
    ] = None,
    plot_path: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw it (PNG, SVG or PDF).", rich_help_panel=_OUT),
    ] = None,
    api_key: Annotated[str, typer.Option(envvar="OPENAI_API_KEY", help="Its API key.")] = "",
    timeout: live.TimeoutOption = 120.0,
    seed: Annotated[int, typer.Option(min=0, help="Of arrivals, lengths and prompts.")] = 0,
) -> None:
    """Load-test an OpenAI-compatible server: TTFT, ITL, TPOT, E2E, tokens per second.

    Closed loop by default; --rate and --trace make it open loop, where arrivals never wait for
    answers. Streams everything; failed requests are counted apart. Exit code 1 if all failed.

    Examples: [bold]motley bench http://127.0.0.1:8000 --classic[/bold],
    [bold]motley bench http://127.0.0.1:8000 --trace azure-conv-like --csv runs.csv[/bold]
    """
    import numpy as np

    from simulator.bench.figures import figures
    from simulator.bench.plan import Closed, Lengths, Open, jobs, jobs_of_trace

    if classic:
        requests, concurrency = CLASSIC["requests"], CLASSIC["concurrency"]
        input_tokens, output_tokens = CLASSIC["input_tokens"], CLASSIC["output_tokens"]
        temperature = 0.0
    if rate is not None and trace is not None:
        raise BadInputError("--rate and --trace both say when requests arrive: give one of them")
    rng = np.random.default_rng([seed, 0xBE4C])
    load: Closed | Open = Closed(concurrency)
    if trace is not None:
        load = Open(1.0)
        todo = jobs_of_trace(_trace(trace, rate_scale, seed), requests)
    else:
        load = Closed(concurrency) if rate is None else Open(rate, burstiness)
        todo = jobs(requests, Lengths(input_tokens, output_tokens, spread), load, rng)
    target = _target(endpoint, model, temperature, not respect_eos, extra)
    name, samples = asyncio.run(_run(url, api_key, timeout, target, todo, load, warm_up, rng))
    found = figures(samples)
    settings = {
        "url": url,
        "model": name,
        "loop": f"closed {concurrency}" if isinstance(load, Closed) else trace or f"open {rate:g}",
        "seed": seed,
    }
    _write(found, samples, label or url, settings, csv_path, json_path, plot_path)
    if not found.completed:
        worst = next((s.error for s in samples if s.error), "nothing was sent")
        raise MotleyError(f"no request was answered; the first said: {worst}")


def _trace(name: str, rate_scale: float, seed: int) -> Any:
    from simulator.workload import TraceSpec, build_trace

    return build_trace(TraceSpec(name, rate_scale=rate_scale), seed)[0]


def _target(endpoint: str, model: str, temperature: float, ignore_eos: bool, extra: str) -> Target:
    from simulator.bench.plan import ENDPOINTS, Target

    known = {name: name for name in ENDPOINTS}
    if endpoint not in known:
        raise BadInputError(f"--endpoint {endpoint!r}: there are {', '.join(ENDPOINTS)}")
    try:
        more = json.loads(extra)
    except json.JSONDecodeError as error:
        raise BadInputError(f"--extra is not JSON: {error}") from error
    if not isinstance(more, dict):
        raise BadInputError("--extra must be a JSON object, such as '{\"top_p\": 0.9}'")
    return Target(model, known[endpoint], temperature, ignore_eos, more)


async def _run(
    url: str,
    api_key: str,
    timeout_s: float,
    target: Target,
    todo: list[Job],
    load: Closed | Open,
    warm_up: int,
    rng: Any,
) -> tuple[str, list[Sample]]:
    from dataclasses import replace

    from simulator.bench.drive import Bench
    from simulator.live.client import EngineClient, open_http

    clock = asyncio.get_running_loop().time
    async with open_http(url, api_key=api_key, timeout_s=timeout_s) as http:
        if not target.model:
            listed = await EngineClient(http, clock).json("/v1/models")
            names = [entry.get("id") for entry in listed.get("data", [])]
            if not names:
                raise BadInputError(f"{url} lists no model at /v1/models: name one with --model")
            target = replace(target, model=str(names[0]))
        bench = Bench(http, target, clock, rng)
        await bench.warm_up(todo[0], warm_up)
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=len(todo))
            samples = await bench.run(todo, load, lambda n, _: bar.update(task, completed=n))
    return target.model, samples


def _write(
    found: Figures,
    samples: list[Sample],
    label: str,
    settings: dict[str, Any],
    csv_path: Path | None,
    json_path: str | None,
    plot_path: Path | None,
) -> None:
    from simulator.bench.output import append_csv, append_json, plot, row

    document = {"label": label, **settings, **found.document()}
    if json_path == "-":
        typer.echo(json.dumps(document))
    else:
        _show(found, f"{settings['model']} at {settings['url']}, {settings['loop']}")
        if json_path is not None:
            append_json(Path(json_path), document)
    if csv_path is not None:
        append_csv(csv_path, row(label, settings, found))
    if plot_path is not None:
        plot(plot_path, samples, f"{label}: {found.completed} of {found.requests} requests")


def _show(found: Figures, title: str) -> None:
    console = Console(highlight=False)
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for name in ("mean", "p50", "p90", "p99", "max"):
        table.add_column(name, justify="right")
    for name, spread, scale, digits in (
        ("TTFT, ms", found.ttft_s, 1000.0, 1),
        ("ITL, ms", found.itl_s, 1000.0, 2),
        ("TPOT, ms", found.tpot_s, 1000.0, 2),
        ("E2E, s", found.e2e_s, 1.0, 3),
        ("tokens/s of a stream", found.tokens_per_s, 1.0, 1),
    ):
        table.add_row(name, *_cells(spread, scale, digits))
    console.print(table)
    console.print(
        f"{found.completed} of {found.requests} completed in {found.seconds:.1f} s: "
        f"{found.requests_per_s:.2f} requests/s, {found.output_tokens_per_s:.0f} tokens/s out, "
        f"{found.total_tokens_per_s:.0f} in and out; "
        f"on average {found.input_tokens:.0f} tokens in, {found.output_tokens:.0f} out"
    )
    for kind, count in found.errors.items():
        console.print(f"[red]failed[/red]: {count} x {kind}")
    if found.backends:
        served = ", ".join(f"{name} {count}" for name, count in found.backends.items())
        console.print(f"served by: {served}")
    if found.completed and found.counted < 1.0:
        console.print("the server does not count tokens: chunks stand in for them")
    if found.late:
        console.print(
            f"[yellow]{found.late} requests were sent late: this client is too slow[/yellow]"
        )


def _cells(spread: Spread, scale: float, digits: int) -> list[str]:
    values = (spread.mean, spread.p50, spread.p90, spread.p99, spread.maximum)
    return ["-" if value is None else f"{value * scale:,.{digits}f}" for value in values]
