"""``motley calibrate``: your own measurements instead of the priors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from router.cli import live
from router.cli.output import write_text
from router.domain.errors import ConfigError
from router.perf.calibration import Calibration, calibrate_csv
from router.perf.overrides import dump_overrides

if TYPE_CHECKING:
    from simulator.live.session import Measured

Form = Literal["measured", "constants"]

CsvOption = Annotated[
    Path | None, typer.Option("--csv", help="Measurements; see below for columns.")
]
UrlOption = Annotated[
    str | None, typer.Option("--url", help="A live engine to measure, as in http://host:8000.")
]
OutOption = Annotated[
    str, typer.Option("--out", "-o", metavar="PATH|-", help="Overrides to write ('-': stdout).")
]
GpuOption = Annotated[
    str | None, typer.Option(help="GPU of all rows without a gpu column, or of the live engine.")
]
ModelOption = Annotated[
    str | None,
    typer.Option(help="Model of all rows without a model column, or which of the engine's."),
]
EngineOption = Annotated[str | None, typer.Option(help="CSV: vllm (default) or sglang.")]
VersionOption = Annotated[str | None, typer.Option(help="CSV: engine version, e.g. 0.18.1.")]
CardsOption = Annotated[int | None, typer.Option(min=1, help="Cards of one engine.")]
QuantizationOption = Annotated[str | None, typer.Option(help="Weight format.")]
FormOption = Annotated[
    Form,
    typer.Option(
        help="Live engine: write the measured iteration (exact, for this model only) or the "
        "card's constants (carry over to other models; a catalogue GPU and model only).",
    ),
]


def calibrate(
    csv: CsvOption = None,
    url: UrlOption = None,
    out: OutOption = "overrides.yaml",
    gpu: GpuOption = None,
    model: ModelOption = None,
    engine: EngineOption = None,
    engine_version: VersionOption = None,
    tensor_parallel: CardsOption = None,
    quantization: QuantizationOption = None,
    form: FormOption = "measured",
    max_num_seqs: live.SeqsOption = None,
    max_num_batched_tokens: live.ChunkOption = None,
    kv_tokens: live.KvOption = None,
    api_key: live.KeyOption = "",
    force: live.ForceOption = False,
    timeout: live.TimeoutOption = 120.0,
    seconds: live.SecondsOption = 120.0,
    max_concurrency: live.ConcurrencyOption = 16,
    max_prompt_tokens: live.PromptOption = 2048,
    seed: Annotated[int, typer.Option(min=0, help="Of the probe's prompts and order.")] = 0,
) -> None:
    """Measure instead of believing: from your own CSV or a live engine to overrides.

    [bold]CSV.[/bold] Columns, either [bold]prefill_tokens, decode_seqs, context_tokens,
    time_s[/bold] (one engine iteration a row) or [bold]concurrency, input_tokens, output_tokens,
    tpot_s, ttft_s[/bold] (a load generator's result a row; one of the two times is enough, and a
    TTFT counts at concurrency 1 only). Times may be in milliseconds (time_ms, tpot_ms, ttft_ms).
    Columns gpu, model, engine, engine_version, tensor_parallel and quantization may vary by row.

    [bold]Live engine.[/bold] Sends prompts of exactly known length, alone and together, to a vLLM
    or SGLang that nobody else uses, and fits the seconds of an iteration to what comes back. On
    a machine without GPU say --gpu cpu.

    [bold]motley calibrate --csv bench.csv --gpu t4 --model llama-3.1-8b[/bold]

    [bold]motley calibrate --url http://10.0.0.7:8000 --gpu t4 --tensor-parallel 2[/bold]
    """
    if (csv is None) == (url is None):
        raise ConfigError("name either measurements (--csv FILE) or a live engine (--url URL)")
    if csv is not None:
        given = {
            "gpu": gpu,
            "model": model,
            "engine": engine,
            "engine_version": engine_version,
            "tensor_parallel": str(tensor_parallel) if tensor_parallel else None,
            "quantization": quantization,
        }
        _from_csv(csv, {key: value for key, value in given.items() if value}, out)
        return
    assert url is not None
    if gpu is None:
        raise ConfigError("--url needs --gpu: which card the engine runs on (cpu: none)")
    if engine or engine_version:
        raise ConfigError("a live engine tells its name and version: leave out --engine*")
    where = live.target(
        gpu,
        tensor_parallel or 1,
        quantization or "",
        model or "",
        max_num_seqs,
        max_num_batched_tokens,
        kv_tokens,
        force,
    )
    options = live.probe_options(seconds, max_concurrency, max_prompt_tokens, seed)
    measured = live.talk(
        url,
        api_key,
        timeout,
        lambda client, report: live.measure(client, where, options, report),
    )
    _write_live(measured, form, url, out)


def _from_csv(csv: Path, defaults: dict[str, str], out: str) -> None:
    results = calibrate_csv(csv, defaults)
    summary = _summary(results)
    text = dump_overrides([r.override for r in results], f"Fitted to {csv.name}.\n{summary}")
    if not _written(text, out):
        typer.echo(f"{summary}\nwritten to {out}")


def _write_live(measured: Measured, form: Form, url: str, out: str) -> None:
    from simulator.live.export import constants_of, override_of

    said = live.describe(measured)
    lines = live.coefficient_lines(measured.fit)
    if form == "constants":
        result = constants_of(measured)
        override, tail = result.override, [_describe(result)]
    else:
        override, tail = override_of(measured), []
    comment = "\n".join([f"Measured on {url}.", *said, *lines, *tail])
    if _written(dump_overrides([override], comment), out):
        return
    console = Console(highlight=False)
    console.print(live.error_table(measured.fit))
    for line in (*said, *lines, *tail, f"written to {out}"):
        console.print(line)


def _written(text: str, out: str) -> bool:
    """Write the YAML; whether it went to standard output, which then holds nothing else."""
    if out == "-":
        typer.echo(text, nl=False)
        return True
    write_text(out, text)
    return False


def _summary(results: Sequence[Calibration]) -> str:
    return "\n".join(_describe(result) for result in results)


def _describe(result: Calibration) -> str:
    override = result.override
    notes = ""
    if result.ignored:
        notes += f"; {result.ignored} TTFT above concurrency 1 ignored"
    if result.at_bound:
        notes += f"; not determined by these points: {', '.join(result.at_bound)}"
    return (
        f"{override.gpu} x{override.tensor_parallel} {override.engine} {override.model}: "
        f"{result.points} points, median error {result.before:.1f} % with priors, "
        f"{result.after:.1f} % after{notes}"
    )
