"""``motley init``: write a commented fleet file, by asking the engines or the person."""

from __future__ import annotations

import asyncio
import difflib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from router.cli.output import write_text
from router.domain.errors import BadInputError, MotleyError
from router.domain.fleet import ENGINES

if TYPE_CHECKING:
    from simulator.live.facts import EngineFacts

T = TypeVar("T")
DEFAULT_URL = "http://127.0.0.1:8000"
MOST_CARDS = 64


@dataclass(frozen=True, slots=True)
class Line:
    """One backend of the file to be.

    Attributes:
        url, gpu, engine, model, tensor_parallel: as in the file.
        version: of the engine; empty if it does not tell.
        kv_capacity_tokens, max_model_len: measured; ``None`` if it does not tell.
        doubts: what the person should look at, a comment each.
    """

    url: str
    gpu: str
    engine: str
    model: str
    tensor_parallel: int = 1
    version: str = ""
    kv_capacity_tokens: int | None = None
    max_model_len: int | None = None
    doubts: tuple[str, ...] = ()


def init(
    path: Annotated[Path, typer.Argument(help="Where to write the file.")] = Path("fleet.yaml"),
    probe: Annotated[
        list[str] | None,
        typer.Option(help="URL of an engine that runs, to ask it (repeatable)."),
    ] = None,
    gpu: Annotated[
        list[str] | None,
        typer.Option(help="Which card, one per --probe or one for all: engines do not tell."),
    ] = None,
    tensor_parallel: Annotated[
        list[int] | None, typer.Option(min=1, max=MOST_CARDS, help="Cards per engine, likewise.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    api_key: Annotated[
        str, typer.Option(envvar="MOTLEY_ENGINE_API_KEY", help="The engines' API key.")
    ] = "",
) -> None:
    """Write a commented fleet file.

    With --probe, each engine is asked what it is, which model it serves and how much KV it has;
    without, you are asked.

    [bold]motley init fleet.yaml --probe http://10.0.0.1:8000 --gpu a100-80 --probe
    http://10.0.0.2:8000 --gpu t4[/bold]
    """
    from router.config.load import load_config
    from simulator.report.outputs import check_place

    check_place(path)
    if path.exists() and not force:
        raise BadInputError(f"{path} exists: name another file, or say --force")
    lines = _probed(probe, gpu or [], tensor_parallel or [], api_key) if probe else _asked(path)
    write_text(path, document(lines))
    typer.echo(f"Wrote {path} with {len(lines)} backend(s).")
    for line in lines:
        for doubt in line.doubts:
            typer.echo(f"  look at {line.url}: {doubt}")
    try:
        load_config(path)
    except MotleyError as error:
        typer.echo(f"  it is not complete yet: {error}")
        return
    typer.echo(f"Check it: motley check {path}. Serve it: motley serve --config {path}.")


def _probed(
    urls: Sequence[str], gpus: Sequence[str], cards: Sequence[int], api_key: str
) -> list[Line]:
    for name, given in (("--gpu", gpus), ("--tensor-parallel", cards)):
        if len(given) not in (0, 1, len(urls)):
            raise BadInputError(f"{name} is given {len(given)} times for {len(urls)} --probe")
    for name in gpus:
        _known_gpu(name)

    async def main() -> list[Line]:
        return [
            await _ask_engine(url, _nth(gpus, i, ""), _nth(cards, i, 1), api_key)
            for i, url in enumerate(urls)
        ]

    return asyncio.run(main())


def _nth(given: Sequence[T], i: int, default: T) -> T:
    return given[i if len(given) > 1 else 0] if given else default


async def _ask_engine(url: str, gpu: str, cards: int, api_key: str) -> Line:
    from simulator.live.client import EngineClient, open_http
    from simulator.live.facts import identify

    async with open_http(url, api_key=api_key, timeout_s=10.0) as http:
        facts = await identify(EngineClient(http, asyncio.get_running_loop().time))
    return line_of(url, gpu, cards, facts)


def line_of(url: str, gpu: str, cards: int, facts: EngineFacts) -> Line:
    """What the file says of an engine that was asked."""
    doubts = []
    if not gpu:
        gpu = "a100-80"
        doubts.append("the engine does not tell its card: a100-80 is a guess (--gpu)")
    model, sure = catalogue_name(facts.model)
    if not sure:
        doubts.append(
            f"{facts.model} is not in the catalogue: describe it under models:, or name its like"
        )
    return Line(
        url,
        gpu,
        facts.engine,
        model,
        cards,
        facts.version,
        facts.kv_capacity_tokens,
        facts.max_model_len or None,
        tuple(doubts),
    )


def catalogue_name(served: str) -> tuple[str, bool]:
    """The catalogue's name of a model as an engine serves it, and whether it is sure."""
    from router.perf.catalog import model_names

    known = model_names()
    plain = served.rsplit("/", 1)[-1].lower()
    for ending in ("-instruct", "-chat", "-it", "-hf", "-awq", "-gptq", "-fp8"):
        plain = plain.replace(ending, "")
    for name in known:
        if _letters(name) in (_letters(plain), _letters(plain.removeprefix("meta-"))):
            return name, True
    near = difflib.get_close_matches(plain, known, n=1, cutoff=0.85)
    return (near[0], False) if near else (served, False)


def _letters(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _known_gpu(name: str) -> str:
    from router.domain.errors import UnknownNameError
    from router.perf.catalog import gpu_names

    if name not in gpu_names():
        raise UnknownNameError("GPU", name, gpu_names())
    return name


def _known_engine(name: str) -> str:
    from router.domain.errors import UnknownNameError

    if name not in ENGINES:
        raise UnknownNameError("engine", name, ENGINES)
    return name


def _some_cards(typed: str) -> str:
    if typed not in map(str, range(1, MOST_CARDS + 1)):
        raise BadInputError(f"{typed!r} is no number of cards: 1 to {MOST_CARDS}")
    return typed


def _some_model(name: str) -> str:
    if not name:
        raise BadInputError("the model needs a name, as the engine serves it")
    return name


def _or_again(check: Callable[[str], str]) -> Callable[[str], str]:
    """Of what a person types: a slip is asked for again, and costs nothing of the rest."""

    def checked(typed: str) -> str:
        try:
            return check(typed.strip())
        except BadInputError as error:
            raise typer.BadParameter(str(error)) from error

    return checked


def _asked(path: Path) -> list[Line]:
    """Ask the person, engine by engine."""
    if not sys.stdin.isatty():
        raise BadInputError("there is nobody to ask: give --probe URL for each engine")
    typer.echo(f"This writes {path}. One engine after the other; leave the URL empty to end.\n")
    lines: list[Line] = []
    while True:
        default = DEFAULT_URL if not lines else ""
        url = typer.prompt("URL of an engine", default=default, show_default=bool(default))
        url = url.strip() or default
        if not url:
            return lines
        card = "  card (a100-80, v100-32, t4, l4 ...)"
        gpu = typer.prompt(card, value_proc=_or_again(_known_gpu))
        cards = typer.prompt("  cards per engine", default="1", value_proc=_or_again(_some_cards))
        engine = typer.prompt(
            "  vllm, sglang or llamacpp", default="vllm", value_proc=_or_again(_known_engine)
        )
        model = typer.prompt("  model", default="llama-3.1-8b", value_proc=_or_again(_some_model))
        lines.append(Line(url, gpu, engine, model, int(cards)))


def document(lines: Sequence[Line]) -> str:
    """The commented file."""
    parts = [_HEAD]
    for line in lines:
        parts += [f"  # {doubt}" for doubt in line.doubts]
        parts += [
            f"  - gpu: {line.gpu}",
            f"    engine: {line.engine}",
            f"    model: {_quoted(line.model)}",
            f"    url: {_quoted(line.url)}",
        ]
        if line.tensor_parallel > 1:
            parts.append(f"    tensor_parallel: {line.tensor_parallel}")
        if line.version:
            parts.append(f"    engine_version: {_quoted(line.version.split('+')[0])}")
        if line.kv_capacity_tokens:
            parts.append(f"    kv_capacity_tokens: {line.kv_capacity_tokens}    # as measured")
        if line.max_model_len:
            parts.append(f"    max_model_len: {line.max_model_len}")
    return "\n".join([*parts, _TAIL])


def _quoted(value: str) -> str:
    return json.dumps(value)  # every JSON string is a YAML string


_HEAD = """\
# The fleet that Motley serves. `motley check` explains it, `motley serve --config` runs it.
# Every other setting, with its default, is in deploy/fleets/example.yaml.
backends:"""

_TAIL = """
policy:
  name: motley

# Targets by service class; what is missed counts against SLO attainment.
slos:
  interactive: {ttft_s: 2.0, tpot_s: 0.1}
  throughput: {ttft_s: 10.0, tpot_s: 0.25}
  bulk: {}

# Facts of every request, never content, for `motley whatif` and `motley simulate`:
# telemetry: {record: {directory: ./record}}

# Keys of your clients; without any, everybody is let in: `motley keys create` makes them.
# server: {api_keys: [...]}
"""
