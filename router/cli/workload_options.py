"""Options that say which requests arrive: shared by ``simulate`` and ``trace``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

_LOAD, _LABELS = "Load", "Labels"

TraceArgument = Annotated[
    str,
    typer.Argument(
        help="A trace file, or a built-in workload: azure-conv-like, azure-code-like, "
        "chat-prefix-like.",
    ),
]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="Force the format: azure, burstgpt, mooncake, bailian, sharegpt, vllm-bench, "
        "guidellm, decision-log, csv, jsonl, json, parquet. Detected from the content by default.",
    ),
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Stop at a malformed line instead of counting it.")
]
MixOption = Annotated[
    list[str] | None,
    typer.Option(
        "--mix", help="Merge another trace by arrival (repeatable).", rich_help_panel=_LOAD
    ),
]
RateScaleOption = Annotated[
    float,
    typer.Option(help="Divide all times by this: 2 doubles the load.", rich_help_panel=_LOAD),
]
StartOption = Annotated[
    float, typer.Option(help="Skip this many seconds of the trace.", rich_help_panel=_LOAD)
]
DurationOption = Annotated[
    float | None,
    typer.Option(
        help="Replay this many seconds of the trace only, counted before --rate-scale.",
        rich_help_panel=_LOAD,
    ),
]
UpsampleOption = Annotated[
    float,
    typer.Option(
        help="Copy each request this often on average, on the same time axis: more load with "
        "the same bursts.",
        rich_help_panel=_LOAD,
    ),
]
JitterOption = Annotated[
    float,
    typer.Option(
        help="Delay each arrival by up to this many seconds (3 undoes Mooncake's ticks).",
        rich_help_panel=_LOAD,
    ),
]
ArrivalsOption = Annotated[
    str | None,
    typer.Option(
        help="Replace the arrival times: poisson, constant, gamma:CV, on-off:ON_S:OFF_S, "
        "diurnal:AMPLITUDE:PERIOD_S. Needs --rate.",
        rich_help_panel=_LOAD,
    ),
]
RateOption = Annotated[
    float | None, typer.Option(help="Requests per second of --arrivals.", rich_help_panel=_LOAD)
]
ModelOption = Annotated[
    str | None, typer.Option(help="Send everything to this model.", rich_help_panel=_LABELS)
]
ModelsOption = Annotated[
    str,
    typer.Option(
        help="Draw the model of requests that name none, as in a=3,b=1.", rich_help_panel=_LABELS
    ),
]
ClassesOption = Annotated[
    str,
    typer.Option(
        help="Draw the service class of requests that name none, as in interactive=3,bulk=1.",
        rich_help_panel=_LABELS,
    ),
]
MaxTokensOption = Annotated[
    str,
    typer.Option(
        "--max-tokens",
        help="Limit of requests whose trace tells none (SGLang reserves memory by it): ceiling "
        "(one power of two that no answer exceeds), none, mixed, or a number.",
        rich_help_panel=_LABELS,
    ),
]


_AS_RECORDED: dict[str, Any] = {
    "mix": None,
    "arrivals": None,
    "rate": None,
    "upsample": 1.0,
    "jitter": 0.0,
    "max_tokens": "none",
}


def trace_spec(source: str, **options: Any) -> Any:
    """Build a ``TraceSpec`` from the options above, under their own names.

    A command that does not offer to draw arrivals anew or to mix traces leaves those out.
    """
    from simulator.workload import TraceSpec, parse_shares

    options = {**_AS_RECORDED, **options}
    return TraceSpec(
        source=source,
        format_name=options["format_name"],
        strict=options["strict"],
        mixed_with=tuple(options["mix"] or ()),
        arrivals=options["arrivals"],
        rate_per_s=options["rate"],
        start_s=options["start"],
        duration_s=options["duration"],
        upsample=options["upsample"],
        jitter_s=options["jitter"],
        rate_scale=options["rate_scale"],
        model=options["model"],
        models=parse_shares(options["models"], "--models"),
        classes=parse_shares(options["classes"], "--classes"),
        max_tokens=options["max_tokens"],
    )
