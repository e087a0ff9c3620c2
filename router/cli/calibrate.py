"""``motley calibrate``: your own measurements instead of the priors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from router.domain.errors import ConfigError
from router.perf.calibration import Calibration, calibrate_csv
from router.perf.overrides import dump_overrides

CsvOption = Annotated[Path, typer.Option("--csv", help="Measurements; see below for columns.")]
OutOption = Annotated[
    str, typer.Option("--out", "-o", metavar="PATH|-", help="Overrides to write ('-': stdout).")
]
GpuOption = Annotated[str | None, typer.Option(help="GPU of all rows without a gpu column.")]
ModelOption = Annotated[str | None, typer.Option(help="Model of all rows without a model column.")]
EngineOption = Annotated[str | None, typer.Option(help="Engine: vllm (default) or sglang.")]
VersionOption = Annotated[str | None, typer.Option(help="Engine version, e.g. 0.18.1.")]
CardsOption = Annotated[int | None, typer.Option(min=1, help="Cards of one engine.")]
QuantizationOption = Annotated[str | None, typer.Option(help="Weight format.")]


def calibrate(
    csv: CsvOption,
    out: OutOption = "overrides.yaml",
    gpu: GpuOption = None,
    model: ModelOption = None,
    engine: EngineOption = None,
    engine_version: VersionOption = None,
    tensor_parallel: CardsOption = None,
    quantization: QuantizationOption = None,
) -> None:
    """Fit the iteration model to your own CSV and write the constants as overrides.

    Columns, either [bold]prefill_tokens, decode_seqs, context_tokens, time_s[/bold] (one engine
    iteration a row) or [bold]concurrency, input_tokens, output_tokens, tpot_s, ttft_s[/bold] (a
    load generator's result a row; one of the two times is enough, and a TTFT counts at
    concurrency 1 only). Times may be in milliseconds (time_ms, tpot_ms, ttft_ms). Columns gpu,
    model, engine, engine_version, tensor_parallel and quantization may vary by row.

    [bold]motley calibrate --csv bench.csv --gpu t4 --model llama-3.1-8b[/bold]
    """
    given = {
        "gpu": gpu,
        "model": model,
        "engine": engine,
        "engine_version": engine_version,
        "tensor_parallel": str(tensor_parallel) if tensor_parallel else None,
        "quantization": quantization,
    }
    results = calibrate_csv(csv, {key: value for key, value in given.items() if value})
    summary = _summary(results)
    text = dump_overrides([r.override for r in results], f"Fitted to {csv.name}.\n{summary}")
    if out == "-":
        typer.echo(text, nl=False)
        return
    try:
        Path(out).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error.strerror}") from error
    typer.echo(f"{summary}\nwritten to {out}")


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
