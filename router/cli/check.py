"""``motley check``: what a configuration means, before anybody depends on it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from router.config.load import MotleyConfig
    from router.domain.fleet import BackendSpec

PROMPT_TOKENS, OUTPUT_TOKENS = 1024, 256
CROWD = 16


@dataclass(frozen=True, slots=True)
class Line:
    """One backend as it is expected to perform; seconds, tokens."""

    name: str
    model: str
    engine: str
    cards: str
    url: str
    kv_capacity_tokens: int
    max_context_tokens: int
    streams: int
    ttft_s: float
    tpot_s: float
    tpot_crowded_s: float


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
    lines = [describe(loaded, spec) for spec in (*loaded.fleet.backends, *pools)]
    found = warnings(loaded, lines)
    if probe:
        found += asyncio.run(_probed(loaded))
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


def describe(config: MotleyConfig, spec: BackendSpec) -> Line:
    """What the hardware model expects of one backend."""
    hardware = config.hardware
    model = hardware.iteration_model(spec)
    kv_tokens = hardware.kv_capacity_tokens(spec)
    defaults = hardware.engine_defaults(spec)
    tokens = PROMPT_TOKENS + OUTPUT_TOKENS
    chunk = defaults.max_num_batched_tokens
    whole, rest = divmod(PROMPT_TOKENS, chunk)
    ttft_s = whole * model.iteration_s(chunk, 0, 0.0)
    ttft_s += model.iteration_s(rest, 0, 0.0) if rest else 0.0
    return Line(
        name=spec.name,
        model=spec.model,
        engine=spec.engine,
        cards=f"{spec.tensor_parallel} x {spec.gpu}",
        url=spec.url or "",
        kv_capacity_tokens=kv_tokens,
        max_context_tokens=min(hardware.max_context_tokens(spec), kv_tokens),
        streams=min(defaults.max_num_seqs, kv_tokens // tokens),
        ttft_s=ttft_s,
        tpot_s=model.iteration_s(0, 1, float(tokens)),
        tpot_crowded_s=model.iteration_s(0, CROWD, float(CROWD * tokens)),
    )


def warnings(config: MotleyConfig, lines: list[Line]) -> list[str]:
    """What looks wrong and is allowed, each with its remedy."""
    found = [*_about_backends(config, lines), *_about_access(config)]
    target = config.slos.get("interactive")
    for line in lines:
        if target and target.ttft_s is not None and line.ttft_s > target.ttft_s:
            found.append(
                f"{line.name}: even idle its TTFT of {line.ttft_s:.2f} s misses "
                f"slos.interactive.ttft_s ({target.ttft_s:g} s): keep it for other classes"
            )
        if target and target.tpot_s is not None and line.tpot_s > target.tpot_s:
            found.append(
                f"{line.name}: even alone its TPOT of {line.tpot_s * 1000:.0f} ms misses "
                f"slos.interactive.tpot_s ({target.tpot_s * 1000:g} ms)"
            )
    return found


def _about_backends(config: MotleyConfig, lines: list[Line]) -> list[str]:
    found = []
    by_model: dict[str, list[Line]] = {}
    by_url: dict[str, list[str]] = {}
    for line in lines:
        by_model.setdefault(line.model, []).append(line)
        if line.url:
            by_url.setdefault(line.url, []).append(line.name)
        if line.streams < CROWD:
            found.append(
                f"{line.name}: KV cache for {line.streams} streams of "
                f"{PROMPT_TOKENS}+{OUTPUT_TOKENS} tokens only: more cards, or a smaller model"
            )
    nowhere = [line.name for line in lines if not line.url]
    if nowhere:
        found.append(f"{', '.join(nowhere)}: no url; 'motley serve' needs one for each")
    for model, served in by_model.items():
        if len(served) == 1 and not config.discovery:
            found.append(f"{model}: one backend serves it; when that fails, nobody does")
        lengths = {line.max_context_tokens for line in served}
        if len(lengths) > 1:
            found.append(
                f"{model}: contexts from {min(lengths):,} to {max(lengths):,} tokens; longer "
                "prompts go to the roomier backends only"
            )
    for url, names in by_url.items():
        if len(names) > 1:
            found.append(f"{', '.join(names)}: the same url {url}; its load is counted twice")
    return found


def _about_access(config: MotleyConfig) -> list[str]:
    found = []
    open_to_all = not (config.server.api_keys or config.access.required)
    public = config.server.host not in ("127.0.0.1", "::1", "localhost")
    if open_to_all and public:
        found.append(
            f"server.host is {config.server.host} and no keys are set: everybody may use the "
            "gateway; make keys with 'motley keys create'"
        )
    if not open_to_all and public and config.server.tls is None:
        found.append("keys travel unencrypted: set server.tls, or put TLS in front")
    plain = [key for key in config.server.api_keys if not key.startswith("sha256:")]
    if plain:
        found.append(f"server.api_keys holds {len(plain)} in plain text; sha256:... is taken too")
    if any(key.usd_per_day for key in config.access.keys) and not config.access.prices:
        found.append("usd_per_day is set and access.prices is not: everything costs nothing")
    if config.shared.interval_s > 0.2:
        found.append(
            f"shared.interval_s is {config.shared.interval_s:g}: replicas that act on older news "
            "than 0.2 s do worse than without any (motley simulate --routers 4 --shared-every)"
        )
    if config.server.workers > 1 and not config.admin.port:
        found.append(
            "/metrics and /debug answer for one worker at random: set admin.port, then worker n "
            "has them at admin.port + n"
        )
    if config.server.workers > 1 and config.server.decision_log:
        found.append("each worker writes a decision log of its own (name-0, name-1, ...)")
    return found


async def _probed(config: MotleyConfig) -> list[str]:
    from router.domain.errors import ConfigError
    from router.gateway.admin.identify import identify
    from router.gateway.identity import Identity
    from router.perf.catalog import gpu_names
    from telemetry.http_get import HttpGetter

    found: list[str] = []
    identity = Identity(config.upstream)
    for spec in config.fleet.backends:
        if not spec.url:
            continue
        fetcher = HttpGetter(
            partial(identity.tls, spec.name), header=partial(identity.authorization, spec.name)
        )
        try:
            told = await identify(spec.url, fetcher, list(gpu_names()))
        except ConfigError as error:
            found.append(f"{spec.name}: {error}")
            continue
        finally:
            fetcher.close()
        for what in ("engine", "model", "gpu"):
            said = getattr(told, what)
            if said and said != getattr(spec, what):
                found.append(
                    f"{spec.name}: the file says {what} {getattr(spec, what)}, the engine {said}"
                )
        if told.max_model_len and spec.max_model_len is None:
            longest = config.hardware.max_context_tokens(spec)
            if told.max_model_len < longest:
                found.append(
                    f"{spec.name}: the engine takes {told.max_model_len:,} tokens, not "
                    f"{longest:,}: set max_model_len"
                )
    return found


def _print(config: MotleyConfig, lines: list[Line], found: list[str]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    models = sorted({line.model for line in lines})
    several = len(models) > 1
    table = Table(box=None, padding=(0, 2, 0, 0), title=", ".join(models))
    table.add_column("backend", no_wrap=True)
    table.add_column("engine", no_wrap=True)
    for column in ("cards", "KV tokens", "context", "streams", "TTFT", f"TPOT, x{CROWD}"):
        table.add_column(column, justify="right", no_wrap=True)
    for names, line in _alike(lines):
        table.add_row(
            names,
            f"{line.model}: {line.engine}" if several else line.engine,
            line.cards.partition(" ")[0],
            f"{line.kv_capacity_tokens:,}",
            f"{line.max_context_tokens:,}",
            str(line.streams),
            f"{line.ttft_s * 1000:.0f} ms",
            f"{line.tpot_s * 1000:.0f}, {line.tpot_crowded_s * 1000:.0f} ms",
        )
    if lines:
        console.print(table)
    for fact in _facts(config):
        console.print(fact)
    for warning in found:
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}", soft_wrap=True)
    if not found:
        console.print("Nothing looks wrong.")


def _alike(lines: list[Line]) -> list[tuple[str, Line]]:
    """Equal backends in one row."""
    rows: dict[Line, list[str]] = {}
    for line in lines:
        rows.setdefault(replace(line, name="", url=""), []).append(line.name)
    return [
        (names[0] if len(names) == 1 else f"{names[0]} +{len(names) - 1}", line)
        for line, names in rows.items()
    ]


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
    return facts
