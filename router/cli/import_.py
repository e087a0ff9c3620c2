"""``motley import``: another router's configuration as a fleet file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from router.cli.importers.read import Kind
from router.cli.output import write_text
from router.domain.errors import BadInputError, MotleyError
from router.domain.fleet import ENGINES

if TYPE_CHECKING:
    from router.cli.importers.found import Found


def import_(
    source: Annotated[
        str, typer.Argument(help="The file; - reads standard input.", metavar="FILE")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where to write; by default to stdout.")
    ] = None,
    kind: Annotated[Kind, typer.Option("--from", help="Whose configuration it is.")] = "auto",
    gpu: Annotated[
        list[str] | None,
        typer.Option(help="Which card: NAME, or PATTERN=NAME for matching URLs, names or models."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Which model, where the source names none: NAME, or PATTERN=NAME."),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="vllm, sglang or llamacpp; else as the source tells.")
    ] = "",
    keep_policy: Annotated[
        bool, typer.Option("--keep-policy", help="Decide as before, where Motley knows how.")
    ] = False,
    release: Annotated[str, typer.Option(help="Name of production-stack's Helm release.")] = "vllm",
    namespace: Annotated[str | None, typer.Option(help="Its namespace.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Turn another router's configuration into a commented fleet file.

    Reads the command line of [bold]production-stack[/bold]'s or [bold]SGLang[/bold]'s router
    (sglang_router, sgl-model-gateway, smg, vllm-router), production-stack's Helm values,
    [bold]LiteLLM[/bold]'s config.yaml, and [bold]nginx[/bold]'s upstream blocks. What has no
    equivalent is listed, with the reason, on the terminal and at the end of the file.

    Nobody else needs to know which card an engine runs on; Motley does. Examples:

    [bold]motley import values.yaml -o fleet.yaml[/bold] (cards are read off nodes)

    [bold]motley import config.yaml -o fleet.yaml --gpu '*10.0.0.1*=a100-80' --gpu t4[/bold]

    [bold]echo "smg --worker-urls http://a:30000" | motley import - --gpu a100-80[/bold]

    Exit codes: 0 written and checked, 1 written but not complete, 2 the input was wrong.
    """
    from router.cli.importers.assemble import Choices, assemble, choices_of
    from router.cli.importers.document import document
    from router.cli.importers.read import read
    from router.config.load import load_config

    if out is not None and out.exists() and not force:
        raise BadInputError(f"{out} exists: name another file, or say --force")
    if engine not in ("", *ENGINES):
        raise BadInputError(f"--engine is one of {', '.join(ENGINES)}, not {engine!r}")
    found = read(_text(source), kind, release, namespace)
    choices = Choices(
        choices_of(gpu or (), "--gpu"), choices_of(model or (), "--model"), engine, keep_policy
    )
    draft = assemble(found, choices)
    text = document(found, draft)
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_text(out, text)
    _tell(found, out, sum(map(len, draft.comments)))
    try:
        load_config(draft.content)
    except MotleyError as error:
        typer.echo(f"It is not complete yet: {error}", err=True)
        raise typer.Exit(1) from error


def _text(source: str) -> str:
    if source == "-":
        return sys.stdin.read()
    try:
        return Path(source).read_text("utf-8")
    except OSError as error:
        raise BadInputError(f"cannot read {source}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadInputError(f"{source} is not UTF-8 text: {error.reason}") from error


def _tell(found: Found, out: Path | None, guesses: int) -> None:
    """The summary, on standard error: standard output may be the file."""

    def say(text: str) -> None:
        typer.echo(text, err=True)

    where = f"Wrote {out}" if out else "Read"
    say(
        f"{where}: {found.origin}, {len(found.engines)} engines, {len(found.services)} services, "
        f"{len(found.lost)} things without an equivalent."
    )
    if guesses:
        say(f"{guesses} guesses are marked above their backends: look at them.")
    for note in found.notes:
        say(f"  look at: {note}")
    for item in found.lost:
        say(f"  not taken: {item.what}: {item.why}")
    if out:
        say(f"Check it: motley check {out}. Serve it: motley serve --config {out}.")
