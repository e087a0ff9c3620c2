"""``motley demo``: an emulated mixed fleet and the gateway in front of it, with one command."""

from __future__ import annotations

import logging
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from router.config.load import MotleyConfig
    from router.dispatcher import Dispatcher

MODEL = "llama-3.1-8b"
DEMO_FLEET: Mapping[str, Any] = {
    "backends": [
        {"gpu": "a100-80", "count": 2, "engine": "sglang", "model": MODEL},
        {"gpu": "a100-40", "count": 1, "engine": "sglang", "model": MODEL},
        {"gpu": "v100-32", "count": 2, "engine": "vllm", "model": MODEL},
        {"gpu": "t4", "count": 4, "engine": "vllm", "model": MODEL, "tensor_parallel": 2},
    ]
}
"""Nine engines on thirteen cards. An 8B model in float16 needs two T4s; SGLang needs Ampere."""

SHADOW: Mapping[str, Any] = {"name": "least-request"}
"""Asked and not obeyed, so that the page shows what another policy would have done."""

PLAN_EVERY_S = 10.0
"""Sooner than in service, as nobody watches a demo for long."""

DRAIN_S = 1.0
STATUS_EVERY_S = 1.0


def demo(
    action: Annotated[
        str,
        typer.Argument(help="Of a running demo: kill, throttle, hang or heal, or policy."),
    ] = "",
    backend: Annotated[
        str, typer.Argument(help="Which one, such as v100-1 or t4-0; or which policy.")
    ] = "",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the gateway.")] = 8000,
    host: Annotated[str, typer.Option(help="Address of the gateway.")] = "127.0.0.1",
    policy: Annotated[str, typer.Option(help="Routing policy.")] = "motley",
    load: Annotated[
        str,
        typer.Option(
            help="Traffic: light, steady, burst (five times as much for 6 s of every 30), trace "
            "(Azure-like conversations); or requests per second."
        ),
    ] = "0",
    speed: Annotated[
        float, typer.Option(min=0.001, help="Emulated seconds per second of the engines.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of answer lengths, policy and load.")] = 0,
    decision_log: Annotated[
        Path | None, typer.Option(help="Write every decision there; see motley replay.")
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(
            help="Write the facts of every request to this directory, not a temporary one."
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show a line of status, live.")
    ] = False,
) -> None:
    """Try Motley without a GPU: [bold]a mixed fleet on this machine, emulated in real time[/bold].

    Starts two A100-80, an A100-40 (SGLang), two V100-32 and four pairs of T4 (vLLM) that serve
    llama-3.1-8b, and the gateway in front of them. Each engine batches, prefills and pages as it
    would on that card, and says w0 w1 w2... Ctrl-C stops everything.

    Examples: [bold]motley demo --load steady[/bold], and in another terminal
    [bold]motley demo kill v100-1[/bold], [bold]motley demo throttle t4-0[/bold],
    [bold]motley demo heal t4-0[/bold], [bold]motley demo policy round-robin[/bold]
    """
    if action:
        from router.cli.demo_act import act
        from router.cli.demo_file import switch_policy

        url = f"http://{host}:{port}"
        done = switch_policy(port, backend) if action == "policy" else act(action, backend, url)
        typer.echo(done)
        return
    # Late: --help need not wait for any of it.
    from router.cli.demo_file import kept, with_urls, written
    from router.cli.serve_flags import with_books
    from router.config.load import load_config
    from router.gateway.server import bind, run, url_of
    from simulator.engine_server.host import EngineHost
    from simulator.engine_server.plan import LoadPlan
    from simulator.engine_server.profiles import parse

    profile, rate_per_s = parse(load)
    chosen: dict[str, Any] = {"policy": {"name": policy, "seed": seed, "shadow": SHADOW}}
    chosen |= {"planner": {"enabled": True, "interval_s": PLAN_EVERY_S, "history": None}}
    chosen |= {"server": {"host": host, "decision_log": decision_log and str(decision_log)}}
    config = load_config({**DEMO_FLEET, **chosen})
    # The gateway's port first: if it is taken, nothing has been started yet.
    with (
        bind(host, port) as listener,
        EngineHost(config.fleet.backends) as engines,
        kept(record) as books,
    ):
        url = url_of(listener)
        plan = LoadPlan(url, MODEL, rate_per_s, seed, profile) if rate_per_s else None
        engines.start(speed=speed, seed=seed, load=plan)
        # The web framework takes as long to import as the engines take to start.
        from router.gateway.app import build_app

        document = with_urls({**DEMO_FLEET, **chosen}, list(engines.urls.values()))
        with written(document, listener.getsockname()[1]) as path:

            def again() -> MotleyConfig:
                return with_books(load_config(path), record=books)

            app = build_app(again(), load=again)
            engines.wait_until_ready()
            # Ctrl-C cuts what still streams, which uvicorn would report with a traceback each.
            logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
            greet(config, engines.urls, url)
            # A shell that runs it in the background has it ignore the Ctrl-C raised at its end.
            with (
                suppress(KeyboardInterrupt),
                _status(app.engine.dispatcher, shown=verbose),
            ):
                run(app, listener, drain_s=DRAIN_S)
            typer.echo("\nStopped the gateway and its engines.")


def greet(config: MotleyConfig, urls: Mapping[str, str], url: str) -> None:
    """Print the fleet and what to try."""
    from rich.console import Console

    console = Console(highlight=False)
    console.print(fleet_table(config, urls))
    port = url.rpartition(":")[2]
    at = "" if port == "8000" else f" --port {port}"
    typer.echo(f"Gateway at {url}/v1 (policy {config.policy.name}); watch the fleet at {url}/")
    typer.echo("\nAsk it something:\n")
    typer.echo(f"  {curl_line(url)}\n")
    typer.echo(f"  {python_line(url)}    # pip install openai\n")
    typer.echo("Make trouble, in another terminal, and watch what happens:\n")
    commands = [f"{as_typed(sys.argv[0])} demo {line}{at}" for line, _ in TRIES]
    for command, (_, what) in zip(commands, TRIES, strict=True):
        typer.echo(f"  {command.ljust(max(map(len, commands)))}   {what}")
    typer.echo("\nCtrl-C stops everything.")


def as_typed(program: str) -> str:
    """What to type for this command from the same folder: from a clone, ``.venv/bin/motley``."""
    path, found = Path(program), shutil.which("motley")
    if path.name != "motley" or not path.exists() or (found and path.samefile(found)):
        return "motley"
    return program


TRIES = (
    ("kill v100-1", "a card crashes and comes back"),
    ("throttle a100-80-0", "a card overheats; the gateway moves work away (then: heal)"),
    ("policy round-robin", "see the tail grow, and go back: policy motley"),
)
"""What a newcomer may try on a running demo."""


def fleet_table(config: MotleyConfig, urls: Mapping[str, str]) -> Table:
    """One row a backend: what it is and what it can do."""
    from rich.box import SIMPLE
    from rich.table import Table

    from router.perf.build import iteration_model, kv_capacity_tokens

    title = f"{MODEL} on an emulated fleet"
    caption = "Tokens per second: a prompt of 1024 alone, a stream alone."
    table = Table(title=title, caption=caption, box=SIMPLE)
    for column in ("backend", "cards", "engine"):
        table.add_column(column, no_wrap=True)
    for column in ("prefill/s", "decode/s", "KV tokens", "port"):
        table.add_column(column, justify="right", no_wrap=True)
    for spec in config.fleet.backends:
        model = iteration_model(spec)
        table.add_row(
            spec.name,
            f"{spec.tensor_parallel} x {spec.gpu}",
            spec.engine,
            f"{1024 / model.iteration_s(1024, 0, 0.0):,.0f}",
            f"{1 / model.iteration_s(0, 1, 1024.0):,.0f}",
            f"{kv_capacity_tokens(spec):,}",
            urls[spec.name].rpartition(":")[2],
        )
    return table


def curl_line(url: str) -> str:
    """A command that streams an answer."""
    messages = '[{"role": "user", "content": "Hi"}]'
    body = f'{{"model": "{MODEL}", "stream": true, "messages": {messages}}}'
    return f"curl -N {url}/v1/chat/completions -H 'content-type: application/json' -d '{body}'"


def python_line(url: str) -> str:
    """The same with the official SDK."""
    call = f"create(model='{MODEL}', messages=[{{'role': 'user', 'content': 'Hi'}}])"
    client = f"OpenAI(base_url='{url}/v1', api_key='none').chat.completions"
    show = "print(answer.choices[0].message.content)"
    return f'python -c "from openai import OpenAI; answer = {client}.{call}; {show}"'


@contextmanager
def _status(dispatcher: Dispatcher, *, shown: bool) -> Iterator[None]:
    """While inside, a line of status a second.

    From a thread, so that the gateway's loop has nothing to do with the terminal; it only reads
    counters.
    """
    if not shown:
        yield
        return
    stop = threading.Event()

    def show() -> None:
        before, after = ("\r", "\x1b[K") if sys.stdout.isatty() else ("", "\n")
        while not stop.wait(STATUS_EVERY_S):
            print(f"{before}{status_line(dispatcher)}{after}", end="", flush=True)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def status_line(dispatcher: Dispatcher) -> str:
    """Counters, and the requests in flight at each backend, kind by kind: ``a100-80 3+4``."""
    d = dispatcher
    lost = d.failed + d.rejected + d.cancelled
    kinds: dict[str, list[str]] = {}
    for backend in d.state.backends:
        kinds.setdefault(backend.spec.gpu, []).append(str(backend.in_flight))
    spread = "  ".join(f"{gpu} {'+'.join(counts)}" for gpu, counts in kinds.items())
    return f"in flight {d.in_flight} queued {d.queued} done {d.completed} lost {lost} | {spread}"
