"""``motley serve``: the gateway, until it is told to stop."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from router.cli.logs import LEVELS, start_logging
from router.cli.serve_flags import with_books, with_flags, with_own_files
from router.cli.static_fleet import static_fleet
from router.config.load import MotleyConfig, load_config

if TYPE_CHECKING:
    from router.gateway.processes import Worker
    from router.gateway.shared.board import Board

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "--fleet", "-c", help="YAML file: fleet, policy, timeouts, server."),
]
HostOption = Annotated[
    str | None, typer.Option(help="Address to listen on; else the file's, else 127.0.0.1.")
]
PortOption = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Port to listen on; else the file's, else 8000."),
]
PolicyOption = Annotated[str | None, typer.Option(help="Decide with this policy instead.")]
BackendsOption = Annotated[
    str | None, typer.Option(help="Without a file: engine URLs, comma-separated.")
]
ModelsOption = Annotated[
    str | None,
    typer.Option(help="Model of each URL, comma-separated; one is for all; else it is asked."),
]
GpusOption = Annotated[
    str | None,
    typer.Option(help="GPU of each URL; one name is for all. SGLang tells it; vLLM does not."),
]
EnginesOption = Annotated[
    str | None, typer.Option(help="Engine of each URL: vllm, sglang or llamacpp; else it is asked.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Any setting of the file: reliability.queue_size=10. Repeat for more."
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(min=1, max=256, help="Processes behind the one port; else the file's, else 1."),
]
LogOption = Annotated[
    Path | None, typer.Option(help="Write every decision to this file, for 'motley replay'.")
]
RecordOption = Annotated[
    Path | None,
    typer.Option(help="Write the facts of every request to Parquet files in this directory."),
]
LearnedOption = Annotated[
    Path | None,
    typer.Option(
        "--keep-learned",
        help="Keep what was learned in this file: read at the start, written every minute.",
    ),
]
AccessOption = Annotated[
    bool, typer.Option("--access-log", help="Log one line a request; facts, never content.")
]
FormatOption = Annotated[str, typer.Option(help="How to log: text, or json (one object a line).")]
LevelOption = Annotated[str, typer.Option(help=f"How much to tell: {', '.join(LEVELS)}.")]


def serve(
    config: ConfigOption = None,
    host: HostOption = None,
    port: PortOption = None,
    policy: PolicyOption = None,
    static_backends: BackendsOption = None,
    static_models: ModelsOption = None,
    static_gpus: GpusOption = None,
    static_engines: EnginesOption = None,
    settings: SetOption = None,
    workers: WorkersOption = None,
    decision_log: LogOption = None,
    record: RecordOption = None,
    keep_learned: LearnedOption = None,
    access_log: AccessOption = False,
    log_format: FormatOption = "text",
    log_level: LevelOption = "info",
) -> None:
    """Serve the fleet behind one OpenAI-compatible door.

    With a file: [bold]motley serve --config fleet.yaml --port 8000[/bold]

    Without: [bold]motley serve --static-backends http://a:8000,http://b:8000
    --static-models llama-3.1-8b --static-gpus a100-80,t4[/bold]

    As SGLang's router: [bold]motley serve --worker-urls http://a:30000 http://b:30000[/bold]

    Flags of production-stack and SGLang's routers are taken where they mean the same; where they
    do not, the error says what to use. The file is read again when it changes and on SIGHUP.

    SIGTERM or Ctrl-C stops accepting and lets streams finish (reliability.drain_timeout_s); a
    second Ctrl-C leaves at once.
    """
    # Late, because the web framework takes half a second that --help need not wait for.
    from router.gateway.app import build_app
    from router.gateway.processes import this_worker
    from router.gateway.server import bind, check_tls, run, url_of

    start_logging(log_level, log_format)

    source: Path | dict[str, Any]
    if config is None and static_backends is None and _discovers(settings or ()):
        source = {"backends": []}
    else:
        source = config or static_fleet(static_backends, static_models, static_gpus, static_engines)

    def load() -> MotleyConfig:
        """The file as it is now, with the command line on top."""
        loaded = load_config(source, settings or ())
        loaded = with_flags(
            loaded, host=host, port=port, policy=policy, log=decision_log, workers=workers
        )
        loaded = with_books(loaded, record=record, access_log=access_log, learned=keep_learned)
        return with_own_files(loaded, this_worker())

    loaded = load()
    check_tls(loaded.server.tls)
    worker = this_worker()
    if loaded.server.workers > 1 and worker is None:
        raise typer.Exit(_serve_together(loaded))
    app = build_app(
        loaded, load=load if config is not None else None, board=_board_of(loaded, worker)
    )
    port_now = loaded.server.port if worker is None else worker.port
    with bind(loaded.server.host, port_now, shared=worker is not None) as listener:
        greeting = _greeting(loaded, url_of(listener, tls=loaded.server.tls is not None))
        logging.getLogger("motley").log(logging.DEBUG if worker else logging.INFO, greeting)
        run(
            app,
            listener,
            drain_s=loaded.reliability.drain_timeout_s,
            front_end=loaded.server.front_end,
            delay_s=loaded.reliability.drain_delay_s,
            tls=loaded.server.tls,
        )


def _serve_together(config: MotleyConfig) -> int:
    """Several processes behind one port; returns the exit code."""
    from router.gateway.processes import run_workers
    from router.gateway.server import bind, url_of

    server = config.server
    # The port is held here without listening, so that it is ours while workers come and go.
    with bind(server.host, server.port, shared=True, listen=False) as held:
        url = url_of(held, tls=server.tls is not None)
        greeting = f"{_greeting(config, url)}, {server.workers} workers"
        logging.getLogger("motley").info(greeting)
        return run_workers(
            server.workers,
            held.getsockname()[1],
            arguments=sys.argv[1:],
            hub=config.shared.url is None,
            stale_after_s=config.shared.stale_after_s,
        )


def _board_of(config: MotleyConfig, worker: Worker | None) -> Board | None:
    from router.gateway.shared.hub import HubBoard

    if worker is None or not worker.hub:
        return None
    return HubBoard(worker.hub, worker.name, config.shared.timeout_s)


def _discovers(settings: Sequence[str]) -> bool:
    """Whether backends come from elsewhere."""
    return any(setting.startswith("discovery.") for setting in settings)


def _greeting(config: MotleyConfig, url: str) -> str:
    fleet = config.fleet
    models = ", ".join(sorted(fleet.models))
    what = f"{models} on {len(fleet.backends)} backends" if models else "what is discovered"
    return f"serving {what} at {url}/v1, policy {config.policy.name}"
