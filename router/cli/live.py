"""Options and output of the commands that talk to a live engine."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from simulator.live.client import EngineClient
    from simulator.live.fit import CostFit
    from simulator.live.probe import ProbeOptions
    from simulator.live.session import Measured, Target

T = TypeVar("T")
Report = Callable[[float, str], object]

_ENGINE, _PROBE = "The live engine", "The probe"

ModelName = Annotated[
    str, typer.Option("--model", help="Which of its models.", rich_help_panel=_ENGINE)
]
SeqsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Its --max-num-seqs, if set.", rich_help_panel=_ENGINE),
]
ChunkOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Its --max-num-batched-tokens (SGLang: --chunked-prefill-size), if set.",
        rich_help_panel=_ENGINE,
    ),
]
KvOption = Annotated[
    int | None,
    typer.Option(min=1, help="Its KV cache in tokens, if it hides it.", rich_help_panel=_ENGINE),
]
KeyOption = Annotated[
    str,
    typer.Option(
        help="Its API key.",
        envvar="MOTLEY_ENGINE_API_KEY",
        show_envvar=True,
        rich_help_panel=_ENGINE,
    ),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Go on although it serves others.", rich_help_panel=_ENGINE)
]
TimeoutOption = Annotated[
    float,
    typer.Option(min=1.0, help="Seconds to wait for its next byte.", rich_help_panel=_ENGINE),
]
SecondsOption = Annotated[
    float, typer.Option(min=1.0, help="About how long to probe.", rich_help_panel=_PROBE)
]
ConcurrencyOption = Annotated[
    int, typer.Option(min=1, help="Most requests at once.", rich_help_panel=_PROBE)
]
PromptOption = Annotated[
    int, typer.Option(min=64, help="Longest prompt, in tokens.", rich_help_panel=_PROBE)
]


def target(
    gpu: str,
    tensor_parallel: int,
    quantization: str,
    model: str,
    max_num_seqs: int | None,
    max_num_batched_tokens: int | None,
    kv_tokens: int | None,
    force: bool,
) -> Target:
    """Which engine, from the options."""
    from simulator.live.session import Target
    from simulator.live.setup import Named

    named = Named(
        gpu=gpu,
        tensor_parallel=tensor_parallel,
        quantization=quantization,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        kv_capacity_tokens=kv_tokens,
    )
    return Target(named, model, force)


def probe_options(
    seconds: float, max_concurrency: int, max_prompt_tokens: int, seed: int
) -> ProbeOptions:
    """How to probe, from the options; the prompts are new every time."""
    from simulator.live.probe import ProbeOptions

    return ProbeOptions(
        seconds=seconds,
        max_concurrency=max_concurrency,
        max_prompt_tokens=max_prompt_tokens,
        seed=seed,
        salt=new_salt(),
    )


def new_salt() -> int:
    """For prompts that are in no prefix cache."""
    return secrets.randbits(48)


def talk(
    url: str, api_key: str, timeout_s: float, use: Callable[[EngineClient, Report], Awaitable[T]]
) -> T:
    """Open a client and let ``use`` work with it, a progress bar on standard error meanwhile."""
    from simulator.live.client import EngineClient, open_http

    async def main(report: Report) -> T:
        async with open_http(url, api_key=api_key, timeout_s=timeout_s) as http:
            return await use(EngineClient(http, asyncio.get_running_loop().time), report)

    columns = (
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)

        def report(share: float, what: str) -> None:
            bar.update(task, completed=share, description=what)

        return asyncio.run(main(report))


async def measure(
    client: EngineClient, where: Target, options: ProbeOptions, report: Report
) -> Measured:
    """Probe and fit; see ``simulator.live.session.measure``."""
    from simulator.live.session import measure as measured

    return await measured(client, where, options, report)


def describe(measured: Measured) -> list[str]:
    """What was measured, and how much it is worth, a line each."""
    spec, probe = measured.setup.spec, measured.probe
    lines = [
        f"{spec.engine} {spec.engine_version} with {spec.model} on {spec.gpu} "
        f"x{spec.tensor_parallel}: "
        f"{len(probe.observations)} observations of {probe.shapes} shapes in {probe.rounds} "
        f"round(s), {probe.wall_s:.0f} s"
    ]
    lines += [f"lost: {count} x {reason}" for reason, count in sorted(probe.lost.items())]
    lines += measured.setup.assumed
    if probe.rounds < 2:
        lines.append("one round only: the intervals mean little; give it more --seconds")
    if measured.disturbed:
        lines.append("others used the engine during the probe: measure again when it is idle")
    return lines


def coefficient_lines(fit: CostFit) -> list[str]:
    """Each coefficient with its 90 % interval, a line each."""
    lines = [
        f"{name:<10} {getattr(fit.cost, name):.4g}  (90 %: {low:.3g} to {high:.3g})"
        for name, (low, high) in fit.intervals.items()
    ]
    if fit.cost.knee_tokens:
        lines.append(f"knee_tokens {fit.cost.knee_tokens:.4g}")
    return lines


def error_table(fit: CostFit) -> Table:
    """How well the coefficients describe what was observed."""
    table = Table(title="error of the fit", title_justify="left", title_style="bold")
    table.add_column("observations")
    table.add_column("kind")
    for name in ("n", "median %", "P95 %", "bias %"):
        table.add_column(name, justify="right")
    for title, errors in (("fitted", fit.fitted), ("held back", fit.held_back)):
        for kind, e in errors.items():
            table.add_row(
                title, kind, str(e.points), f"{e.median:.1f}", f"{e.p95:.1f}", f"{e.bias:+.1f}"
            )
    return table
