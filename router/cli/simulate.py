"""``motley simulate``: replay a trace over a fleet with one policy or all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from router.cli.learned import LearnedOption, read_known
from router.cli.simulate_outputs import Outputs
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
    from simulator.batch import Batch
    from simulator.results import RunResult

Switch = Literal["on", "off"]
EngineMode = Literal["fast", "exact"]
Predictor = Literal["bucket", "constant", "oracle"]
_OUT, _REAL, _FAULTS = "Output", "Realism", "Faults and topology"
_OF_NO_ORACLE = (
    "model_error",
    "length_predictor",
    "scrape_interval",
    "telemetry_delay",
    "feedback",
)


def simulate(
    context: typer.Context,
    trace: TraceArgument,
    fleet: Annotated[Path, typer.Option(help="Fleet file (YAML), the same that serve reads.")],
    policy: Annotated[
        list[str] | None,
        typer.Option(help="Policy to replay (repeatable), or all; the fleet file's by default."),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of all that is random: same seed, same bytes.")
    ] = 0,
    seeds: Annotated[
        int, typer.Option(min=1, help="Replay with this many seeds, from --seed up.")
    ] = 1,
    json_path: Annotated[
        str | None,
        typer.Option(
            "--json", help="Write the figures as JSON; - is stdout.", rich_help_panel=_OUT
        ),
    ] = None,
    per_request: Annotated[
        Path | None,
        typer.Option(help="Write a row per request (.parquet .csv .jsonl).", rich_help_panel=_OUT),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page of plots.", rich_help_panel=_OUT)
    ] = None,
    decision_log: Annotated[
        Path | None,
        typer.Option(
            help="Write every call on the dispatcher, for motley replay; with several runs the "
            "policy and seed are added to the name.",
            rich_help_panel=_OUT,
        ),
    ] = None,
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
    max_tokens: MaxTokensOption = "ceiling",
    engine: Annotated[
        EngineMode,
        typer.Option(
            help="fast jumps over iterations in which nothing changes; exact steps through all.",
            rich_help_panel=_REAL,
        ),
    ] = "fast",
    model_error: Annotated[
        float,
        typer.Option(
            help="How wrong the router believes each backend's speed: sigma of a log-normal "
            "factor per backend and phase.",
            rich_help_panel=_REAL,
        ),
    ] = 0.2,
    scrape_interval: Annotated[
        float,
        typer.Option(
            help="Seconds between reads of the engines' metrics; 0: never.", rich_help_panel=_REAL
        ),
    ] = 1.0,
    telemetry_delay: Annotated[
        float, typer.Option(help="Seconds from reading to knowing.", rich_help_panel=_REAL)
    ] = 0.05,
    length_predictor: Annotated[
        Predictor, typer.Option(help="Forecast of output lengths.", rich_help_panel=_REAL)
    ] = "bucket",
    learned: LearnedOption = None,
    feedback: Annotated[
        Switch,
        typer.Option(help="Whether observed latencies correct the belief.", rich_help_panel=_REAL),
    ] = "on",
    plan: Annotated[
        Switch,
        typer.Option(help="Whether the planner's prices guide the policy.", rich_help_panel=_REAL),
    ] = "off",
    admission: Annotated[
        Switch | None,
        typer.Option(
            help="Whether service classes are scheduled and hopeless requests rejected early; by "
            "default as the fleet file says.",
            rich_help_panel=_REAL,
        ),
    ] = None,
    hedging: Annotated[
        Switch | None,
        typer.Option(
            help="Whether a late first token may be sought from a second backend; by default as "
            "the fleet file says.",
            rich_help_panel=_REAL,
        ),
    ] = None,
    disaggregation: Annotated[
        Switch | None,
        typer.Option(
            help="Whether two backends may share a request, one its prompt and one its answer; by "
            "default as the fleet file says.",
            rich_help_panel=_REAL,
        ),
    ] = None,
    fallback: Annotated[
        Switch,
        typer.Option(
            help="Whether requests allow the fleet file's fallback models under overload.",
            rich_help_panel=_REAL,
        ),
    ] = "off",
    oracle: Annotated[
        bool,
        typer.Option(
            "--oracle",
            help="True lengths, exact costs, fresh signals: the bound, not a result.",
            rich_help_panel=_REAL,
        ),
    ] = False,
    faults: Annotated[
        Path | None,
        typer.Option(
            help="Timeline (YAML): a list of {at_s, backend, kind, factor, for_s}; kinds: slow "
            "kill hang error restart join drain.",
            rich_help_panel=_FAULTS,
        ),
    ] = None,
    routers: Annotated[
        int,
        typer.Option(
            help="Gateway replicas that share nothing but the engines' metrics.",
            rich_help_panel=_FAULTS,
        ),
    ] = 1,
    shared_every: Annotated[
        float,
        typer.Option(
            help="Replicas tell each other what they have under way, every so many seconds "
            "(0.1 with Redis); 0 for never.",
            rich_help_panel=_FAULTS,
        ),
    ] = 0.0,
    zone_delay: Annotated[
        str,
        typer.Option(
            help="One-way network delay to each zone, as in b=0.02,c=0.05.", rich_help_panel=_FAULTS
        ),
    ] = "",
    client_timeout: Annotated[
        float | None,
        typer.Option(help="Clients leave after this many seconds.", rich_help_panel=_FAULTS),
    ] = None,
) -> None:
    """Replay a trace over a fleet and compare policies.

    The router sees what production would show it: metrics a scrape old, lengths it must guess,
    speeds it is wrong about. [bold]--oracle[/bold] shows the bound without those.

    Example: [bold]motley simulate azure-conv-like --fleet fleet.yaml --policy all
    --rate-scale 2 --html report.html[/bold]
    """
    from dataclasses import replace

    from router.config.load import load_config
    from simulator.batch import Batch
    from simulator.faults import load_faults
    from simulator.options import ReplayOptions
    from simulator.workload import parse_shares

    if oracle:
        _check_oracle(context)
    known = read_known(learned)
    options = ReplayOptions(
        seed=seed,
        engine=engine,
        model_error=model_error,
        scrape_interval_s=scrape_interval,
        telemetry_delay_s=telemetry_delay,
        length_predictor=length_predictor,
        feedback=feedback == "on",
        plan=plan == "on",
        routers=routers,
        shared_every_s=shared_every,
        zone_delay_s=parse_shares(
            zone_delay, "--zone-delay", "zone=seconds, as in eu=0.08,us=0.01"
        ),
        client_timeout_s=client_timeout,
        oracle=oracle,
        fallback=fallback == "on",
    )
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
    config = load_config(fleet)
    switches = {"admission": admission, "hedging": hedging, "disaggregation": disaggregation}
    for name, switch in switches.items():
        if switch is not None:
            section = getattr(config, name).model_copy(update={"enabled": switch == "on"})
            config = replace(config, **{name: section})
    batch = Batch(
        spec=spec,
        config=config,
        policies=policy or [config.policy.name],
        options=options,
        seeds=seeds,
        faults=load_faults(faults) if faults else [],
        decision_log=decision_log,
        learned=known,
    )
    outputs = Outputs(json_path, per_request, html)
    outputs.check(decision_log)
    outputs.write(_run(batch))


def _check_oracle(context: typer.Context) -> None:
    """An oracle would override them without a word."""
    given = [
        f"--{name.replace('_', '-')}"
        for name in _OF_NO_ORACLE
        if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"
    ]
    if given:
        raise ConfigError(
            f"--oracle knows lengths, costs and signals as they are, so {', '.join(given)} would "
            "say nothing: leave out one or the other"
        )


def _run(batch: Batch) -> list[RunResult]:
    """Run everything behind a progress bar on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        tasks: dict[str, Any] = {}

        def progress(name: str, done: int, total: int) -> None:
            task = tasks.get(name)
            if task is None:
                task = tasks[name] = bar.add_task(name, total=total)
            bar.update(task, completed=done)

        results = batch.run(progress)
    for note in batch.trace_notes:
        console.print(f"note: {note}", style="yellow", highlight=False, markup=False)
    return results
