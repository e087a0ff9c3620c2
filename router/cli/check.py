"""``motley check``: what a configuration means, before anybody depends on it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from router.cli.check_backends import CROWD, Line, alike, describe
from router.cli.check_learned import about_learned
from router.cli.check_start import doubts, refuse
from router.cli.check_warnings import probed, warnings

if TYPE_CHECKING:
    from rich.table import Table

    from router.config.load import MotleyConfig


def check(
    config: Annotated[
        Path | None,
        typer.Argument(help="The YAML file; --manifests has its own.", dir_okay=False),
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Ask every engine what it serves, and compare.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 on warnings.")] = False,
    kubernetes: Annotated[
        bool,
        typer.Option("--kubernetes", help="Look at the cluster: rights, nodes, pods, images."),
    ] = False,
    manifests: Annotated[
        Path | None,
        typer.Option(
            help="What 'helm template' printed (- is standard input): looked at before it is "
            "installed; the file is taken from it."
        ),
    ] = None,
    service_account: Annotated[
        str,
        typer.Option(help="NAMESPACE:NAME whose rights --kubernetes asks for; else your own."),
    ] = "",
) -> None:
    """Explain a configuration: what each backend can serve, how fast, and what looks wrong.

    TTFT is of a 1,024-token prompt on an idle backend, TPOT of one stream and of 16 together, as
    the hardware model believes; [bold]motley calibrate[/bold] measures instead.

    Examples:

    [bold]motley check fleet.yaml[/bold]

    [bold]motley check fleet.yaml --probe --strict[/bold] (in a pipeline)

    [bold]helm template fleet deploy/helm/motley -n llm -f values.yaml | motley check --kubernetes
    --manifests -[/bold] (before the chart is installed)

    [bold]motley check motley.yaml --kubernetes[/bold] (after)

    Exit codes: 0 fine, 1 warnings with --strict or problems in the cluster, 2 the file is wrong.
    """
    from router.cli.check_cluster import look_at_cluster, manifests_of, pools_of, print_cluster
    from router.config.load import load_config
    from router.domain.errors import ConfigError

    things, content = manifests_of(manifests) if manifests is not None else ([], None)
    if config is None and content is None:
        raise ConfigError("which file? motley check fleet.yaml")
    loaded = load_config(content if config is None and content is not None else config or Path())
    pools = pools_of(things)
    refuse(loaded)
    lines = [describe(loaded, spec) for spec in (*loaded.fleet.backends, *pools)]
    found = [*warnings(loaded, lines), *doubts(loaded, elsewhere=bool(things))]
    if probe:
        found += asyncio.run(probed(loaded))
    cluster = look_at_cluster(loaded, things, service_account) if kubernetes or things else None
    if as_json:
        shown: dict[str, Any] = {
            "backends": [asdict(line) for line in lines],
            "warnings": found,
        }
        if cluster is not None:
            shown["cluster"] = [asdict(one) for one in cluster]
        typer.echo(json.dumps(shown, indent=2))
    else:
        _print(loaded, lines, found)
        if cluster is not None:
            print_cluster(cluster)
    bad = any(one.kind == "problem" for one in cluster or ())
    if (strict and found) or bad:
        raise typer.Exit(1)


def _print(config: MotleyConfig, lines: list[Line], found: list[str]) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    for model in sorted({line.model for line in lines}):
        console.print(_table(model, [line for line in lines if line.model == model]))
    for fact in _facts(config):
        console.print(fact)
    for warning in found:
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}", soft_wrap=True)
    if not found:
        console.print("Nothing looks wrong.")


def _table(model: str, lines: list[Line]) -> Table:
    """The backends of one model."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), title=model)
    table.add_column("backend", no_wrap=True)
    table.add_column("engine", no_wrap=True)
    for column in ("cards", "KV tokens", "context", "streams", "TTFT", f"TPOT, x{CROWD}"):
        table.add_column(column, justify="right", no_wrap=True)
    for names, line in alike(lines):
        table.add_row(
            names,
            line.engine,
            line.cards.partition(" ")[0],
            f"{line.kv_capacity_tokens:,}",
            f"{line.max_context_tokens:,}",
            str(line.streams),
            f"{line.ttft_s * 1000:.0f} ms",
            f"{line.tpot_s * 1000:.0f}, {line.tpot_crowded_s * 1000:.0f} ms",
        )
    return table


def _facts(config: MotleyConfig) -> list[str]:
    names = ", ".join(f"{alias} = {model}" for alias, model in config.aliases.items())
    facts = [
        f"policy {config.policy.name}; classes {', '.join(sorted(config.slos))}; "
        f"aliases {names or 'none'}; planner {'on' if config.planner.enabled else 'off'}",
    ]
    found = config.discovery
    sources = len(found.files) + len(found.dns) + len(found.kubernetes)
    if sources:
        facts.append(f"{sources} sources of further backends (discovery)")
    shared: Any = config.shared.url
    if shared:
        facts.append("state is shared through Redis")
    return [*facts, *about_learned(config).facts]
