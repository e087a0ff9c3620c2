"""Entry point: finds the command, runs it, turns errors into one line and an exit code.

Exit codes: 0 done, 1 it failed, 2 the input was wrong, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from keyword import iskeyword
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from router.domain.errors import BadInputError, MotleyError

COMMANDS = (
    "init",
    "import",
    "serve",
    "check",
    "keys",
    "demo",
    "engine",
    "simulate",
    "sweep",
    "whatif",
    "plan",
    "plans",
    "tune",
    "trace",
    "accuracy",
    "calibrate",
    "validate",
    "bench",
    "evaluate",
    "replay",
    "metrics",
)
"""In the order a newcomer meets them; ``router/cli/<name>.py`` holds the function ``<name>``
(``import_``, because Python keeps the word)."""

NEEDS_ARGUMENTS = frozenset({"import", "check", "simulate", "sweep", "whatif", "plan", "tune"})
"""Commands that explain themselves when given nothing."""


class LazyCommands(TyperGroup):
    """Imports a command's module when the command is asked for, so that start-up stays fast."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """All commands, in the order of ``COMMANDS``."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """Import and build one command; ``None`` if there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        own = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name
        module = import_module(f"router.cli.{own}")
        if isinstance(getattr(module, "app", None), typer.Typer):
            return typer.main.get_command(module.app)
        single = typer.Typer(add_completion=False, rich_markup_mode="rich")
        single.command(name=cmd_name, no_args_is_help=cmd_name in NEEDS_ARGUMENTS)(
            getattr(module, own)
        )
        return typer.main.get_command(single)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"motley {installed_version()}")
        raise typer.Exit


def installed_version() -> str:
    """The version of the installed distribution; "0+source" where there is none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("motley-router")
    except PackageNotFoundError:
        return "0+source"


def build_cli() -> Callable[..., Any]:
    """The whole command tree."""
    app = typer.Typer(
        cls=LazyCommands,
        name="motley",
        no_args_is_help=True,
        rich_markup_mode="rich",
        help="Route LLM requests over a motley fleet of GPUs, so that slow cards help and "
        "never hurt. Begin with [bold]motley demo[/bold].",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    return typer.main.get_command(app).main


def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Say which version."),
    ] = False,
) -> None:
    """The root command does nothing itself."""


def _in_our_words(arguments: Sequence[str] | None) -> list[str]:
    """``serve`` takes the flags of other routers, where they mean the same."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] != ["serve"]:
        return given
    from router.cli.spellings import translated

    return ["serve", *translated(given[1:])]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    try:
        build_cli()(args=_in_our_words(arguments), prog_name="motley")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        return 130
    except BadInputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except MotleyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
