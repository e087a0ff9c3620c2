"""``motley trace``: look at a trace, bend it, write it in Motley's own format."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from router.cli.workload_options import (
    ArrivalsOption,
    ClassesOption,
    DurationOption,
    FormatOption,
    JitterOption,
    MaxTokensOption,
    MixOption,
    ModelOption,
    ModelsOption,
    RateOption,
    RateScaleOption,
    StartOption,
    StrictOption,
    TraceArgument,
    UpsampleOption,
    trace_spec,
)
from router.domain.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from simulator.traces.columns import Trace
    from simulator.traces.stats import TraceStats


def trace(
    trace: TraceArgument,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the requests as .csv, .jsonl (both also .gz) or .parquet."),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Of a traffic record: hold what was predicted against what came, backend by "
            "backend, and draw it (.png or .svg)."
        ),
    ] = None,
    learned: Annotated[
        Path | None,
        typer.Option(
            help="Write what it teaches of the lengths of answers, for telemetry.learned.file: a "
            "gateway that begins with it is not cold. The file must not be there yet."
        ),
    ] = None,
    anonymize: Annotated[
        bool,
        typer.Option(
            "--anonymize", help="Hash tenants, sessions and prefixes anew, to give the trace away."
        ),
    ] = False,
    salt: Annotated[
        str | None,
        typer.Option(help="Key of those hashes; keep it to join traces. Else a random one."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all that is random.")] = 0,
    format_name: FormatOption = None,
    strict: StrictOption = False,
    mix: MixOption = None,
    rate_scale: RateScaleOption = 1.0,
    start: StartOption = 0.0,
    duration: DurationOption = None,
    upsample: UpsampleOption = 1.0,
    jitter: JitterOption = 0.0,
    arrivals: ArrivalsOption = None,
    rate: RateOption = None,
    model: ModelOption = None,
    models: ModelsOption = "",
    classes: ClassesOption = "",
    max_tokens: MaxTokensOption = "none",
) -> None:
    """Describe a trace, bend it, and write it in Motley's own format.

    Example: [bold]motley trace azure2023_conv.csv --duration 600 --rate-scale 2
    --classes interactive=3,bulk=1 --out mine.parquet[/bold]

    A traffic record of the gateway:
    [bold]motley trace traffic/ --anonymize --out mine.parquet[/bold]

    For a gateway that has not served yet:
    [bold]motley trace traffic/ --model llama-3.1-8b --learned learned.json[/bold]
    """
    from rich.console import Console

    from simulator.report.outputs import check_rows, writing
    from simulator.traces.anonymize import anonymized
    from simulator.traces.stats import describe
    from simulator.traces.write import write_trace
    from simulator.workload import build_trace

    if predictions is not None:
        _tell_predictions(Path(trace), predictions)
        return
    if out is not None:
        check_rows(out)
    if learned is not None and learned.exists():
        raise ConfigError(f"{learned} is there already: name another file, or remove it")
    spec = trace_spec(
        trace,
        format_name=format_name,
        strict=strict,
        mix=mix,
        rate_scale=rate_scale,
        start=start,
        duration=duration,
        upsample=upsample,
        jitter=jitter,
        arrivals=arrivals,
        rate=rate,
        model=model,
        models=models,
        classes=classes,
        max_tokens=max_tokens,
    )
    built, notes = build_trace(spec, seed)
    if anonymize:
        built = anonymized(built, salt.encode() if salt else secrets.token_bytes(16))
    console = Console(highlight=False)
    console.print(_table(built.name, describe(built), timed=built.timed))
    for note in notes:
        console.print(note, style="yellow", markup=False)
    if out is not None:
        with writing(out):
            write_trace(built, out)
        console.print(f"{len(built)} requests written to {out}", markup=False)
    if learned is not None:
        console.print(_teach(built, model or "", learned), markup=False)


def _teach(trace: Trace, model: str, path: Path) -> str:
    """Write what a trace teaches.

    Raises:
        BadInputError: it names no model, or the file cannot be written.
    """
    from simulator.lessons import lengths_of
    from telemetry.learned import encode
    from telemetry.learned_file import LearnedFile

    told = lengths_of(trace, model, time.time())
    file = LearnedFile(path)
    try:
        file.write(encode(told))
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    return f"{len(told.lengths)} cells of lengths written to {path}"


def _tell_predictions(record: Path, plot: Path) -> None:
    """Print bias, errors and coverage of every backend, and draw them."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from simulator.report.outputs import check_place, writing
    from simulator.report.predictions import plot_predictions, read_predictions, reports

    check_place(plot)
    found = read_predictions(record)
    with writing(plot):
        plot_predictions(found, plot)
    table = Table(box=SIMPLE_HEAD, title="Predicted against actual", title_justify="left")
    for column in ("figure", "backend"):
        table.add_column(column)
    for column in ("requests", "bias", "P50 error", "P95 error", "coverage of 90 %"):
        table.add_column(column, justify="right")
    for one in reports(found):
        table.add_row(
            *(one.figure, one.backend, f"{one.requests:,}", f"{one.bias:.2f}"),
            *(f"{100 * one.p50_error:.0f} %", f"{100 * one.p95_error:.0f} %"),
            "" if one.coverage is None else f"{100 * one.coverage:.0f} %",
            end_section=False,
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(f"Bias is actual over predicted, 1 is right. Plot: {plot}", markup=False)


def _table(name: str, stats: TraceStats, *, timed: bool) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, title=name, title_justify="left", show_header=False)
    table.add_column(style="dim")
    table.add_column()
    table.add_row("requests", f"{stats.requests:,}")
    for label, tokens in (("input", stats.input_tokens), ("output", stats.output_tokens)):
        table.add_row(
            f"{label} tokens",
            f"mean {tokens.mean:,.1f}  p50 {tokens.p50:,.0f}  p90 {tokens.p90:,.0f}  "
            f"p99 {tokens.p99:,.0f}  max {tokens.max:,}",
        )
    if timed:
        dispersion = ", ".join(f"{v:.1f} at {w:g} s" for w, v in stats.dispersion.items())
        table.add_row("span", f"{stats.span_s:,.1f} s")
        rate = f"{stats.rate_per_s:.2f} /s, busiest minute {stats.peak_to_mean:.2f}x"
        table.add_row("rate", rate if stats.span_s > 0 else "none: all arrive at one instant")
        table.add_row("burstiness", f"gaps CV {stats.gap_cv:.2f}; dispersion {dispersion}")
    else:
        table.add_row("arrivals", "none in the file; add --arrivals poisson --rate 5 to replay it")
    if stats.shared_ratio is not None:
        shared = f"{100 * stats.shared_ratio:.1f} % of input tokens, with one infinite cache"
        table.add_row("shared prefixes", shared)
    return table
