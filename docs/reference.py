"""Write the reference pages from the code they describe: ``python -m docs.reference``.

Settings come from the schema of the YAML file, policies from the registry, commands from the
command line itself, metrics from the table that defines them.
"""

from __future__ import annotations

import inspect
import random
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import click
import typer
import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from router.cli.main import COMMANDS, LazyCommands
from router.config.schema import ConfigFile
from router.policies.context import PolicyContext
from router.policies.registry import BLIND_TO_SPEED, POLICIES
from telemetry.metric_table import markdown

PAGES = Path(__file__).parent / "pages" / "reference"
MEANINGS = Path(__file__).parent / "settings.yaml"
WORDS = {str: "text", int: "integer", float: "number", bool: "true or false", Any: "anything"}
SIGNS = {Ge: "≥", Gt: ">", Le: "≤", Lt: "<"}


def settings() -> str:
    """Every key of the YAML file, section by section."""
    lines = [
        "# Settings",
        "",
        "One YAML file, read by `motley serve`, `check`, `plan`, `simulate` and others. A key that",
        "does not exist is an error, as is a value out of range. `motley init` writes a commented",
        "file; `motley check FILE` says what it means.",
    ]
    for path, model in sections(ConfigFile, ""):
        lines += ["", f"## {path or 'The file'}", "", _first_paragraphs(model.__doc__ or ""), ""]
        lines += ["| key | meaning | type | default |", "|---|---|---|---|"]
        for name, field in model.model_fields.items():
            cells = (meaning(path, name), _type_of(field), _default_of(field))
            lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


@cache
def meanings() -> dict[str, str]:
    """What settings mean, by whole path or by last word."""
    found: dict[str, str] = yaml.safe_load(MEANINGS.read_text("utf-8"))
    return found


def meaning(path: str, name: str) -> str:
    """What one setting means; empty if nobody wrote it down."""
    whole = f"{path}.{name}" if path else name
    return meanings().get(whole) or meanings().get(name, "")


def sections(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section of the file with its path, outermost first."""
    yield path, model
    for name, field in model.model_fields.items():
        below = f"{path}.{name}" if path else name
        for part, suffix in _models_in(field.annotation, ""):
            yield from sections(part, below + suffix)


def _models_in(annotation: Any, suffix: str) -> Iterator[tuple[type[BaseModel], str]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation, suffix
        return
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    more = {list: "[]", tuple: "[]", dict: ".NAME"}.get(origin, "") if origin else ""
    for part in parts:
        yield from _models_in(part, suffix + more)


def _type_of(field: FieldInfo) -> str:
    limits = "".join(
        f", {sign} {getattr(found, name):g}"
        for found in field.metadata
        for kind, sign in SIGNS.items()
        for name in (kind.__name__.lower(),)
        if isinstance(found, kind)
    )
    return f"{_told(field.annotation)}{limits}"


def _told(annotation: Any) -> str:
    """A type in words: ``list of text``, ``vllm or sglang``."""
    if annotation in WORDS:
        return WORDS[annotation]
    if inspect.isclass(annotation) and not typing.get_origin(annotation):
        return "section" if issubclass(annotation, BaseModel) else annotation.__name__
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " or ".join(f"`{part}`" for part in parts)
    told = [_told(part) for part in parts if part is not type(None)]
    return {
        typing.Annotated: "{0}",
        list: "list of {0}",
        tuple: "list of {0}",
        dict: "mapping from {0} to {1}",
    }.get(origin, " or ".join(dict.fromkeys(told))).format(*told)


def _default_of(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return "**required**"
    if isinstance(default, BaseModel):
        return "see below"
    if default is None or default in ("", [], {}):
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default}`"


def policies() -> str:
    """Every policy: what it is, and its parameters."""
    lines = [
        "# Policies",
        "",
        "`policy.name` in the file, `--policy` on the command line; parameters go under",
        "`policy.params`. Each is one file in `router/policies`.",
    ]
    for name, factory in POLICIES.items():
        context = PolicyContext(random.Random(0), {}, {})
        factory(context)
        module = inspect.getmodule(factory)
        text = (module.__doc__ or "").strip() if module else ""
        lines += ["", f"## {name}", "", _as_markdown(text)]
        if name in BLIND_TO_SPEED:
            lines += ["", "Blind to speed: it never looks at what a card can do."]
        taken = ", ".join(f"`{asked}`" for asked in sorted(context.asked)) or "none"
        lines += ["", f"Parameters: {taken}."]
    return "\n".join(lines) + "\n"


def _as_markdown(text: str) -> str:
    """A docstring's ``code`` and its indented blocks as Markdown."""
    text = inspect.cleandoc(text).replace("``", "`")
    return re.sub(r"::\n\n((?:    .*\n?|\n)+)", _fence, text)


def _fence(found: re.Match[str]) -> str:
    body = inspect.cleandoc("\n" + found[1])
    return f":\n\n```text\n{body}\n```\n\n"


def _first_paragraphs(text: str) -> str:
    return _as_markdown(text).strip()


def commands() -> str:
    """Every command with its arguments and options."""
    lines = [
        "# Commands",
        "",
        "`motley COMMAND --help` says the same. Exit codes: 0 done, 1 failed, 2 the input was",
        "wrong (one line says what and what to do), 130 interrupted.",
    ]
    app = typer.Typer(cls=LazyCommands, add_completion=False)
    app.callback()(lambda: None)
    root = typing.cast(Any, typer.main.get_command(app))
    context = click.Context(root)
    for name in COMMANDS:
        lines += _command(root.get_command(context, name), f"motley {name}", "##")
    return "\n".join(lines) + "\n"


def _command(command: Any, name: str, level: str) -> list[str]:
    lines = ["", f"{level} {name}", "", _plain(command.help or "")]
    if hasattr(command, "commands"):
        for below, part in command.commands.items():
            lines += _command(part, f"{name} {below}", level + "#")
        return lines
    context = click.Context(command, info_name=name)
    told = [(param, record) for param in command.params if (record := _param(param, context))]
    if told:
        lines += ["", "| | meaning | default |", "|---|---|---|"]
        lines += [record for _, record in told]
    return lines


def _param(param: Any, context: Any) -> str:
    if getattr(param, "hidden", False) or param.name == "help":
        return ""
    if param.param_type_name == "argument":
        name = f"`{(param.metavar or param.name).upper()}`"
    else:
        name = ", ".join(f"`{flag}`" for flag in (*param.opts, *param.secondary_opts))
    default = "**required**" if param.required else _value(param.get_default(context))
    return f"| {name} | {_plain(param.help or '')} | {default} |"


def _value(default: Any) -> str:
    if callable(default):
        default = default()
    if default in (None, "", False, (), []):
        return ""
    return f"`{default}`"


def _plain(text: str) -> str:
    """Rich's markup as Markdown; a table's bars escaped."""
    text = inspect.cleandoc(text).replace("``", "`")
    text = re.sub(r"\[bold\](.*?)\[/bold\]", r"`\1`", text, flags=re.DOTALL)
    text = re.sub(r"`([^`]*)`", lambda found: "`" + " ".join(found[1].split()) + "`", text)
    return text.replace("\\[", "[").replace("|", "\\|")


def metrics() -> str:
    """Every metric of ``/metrics``."""
    intro = "What `/metrics` exports; `motley metrics` prints the same table."
    return f"# Metrics\n\n{intro}\n\n{markdown()}"


REFERENCE: Mapping[str, Callable[[], str]] = {
    "settings.md": settings,
    "policies.md": policies,
    "commands.md": commands,
    "metrics.md": metrics,
}


def main() -> None:
    """Write them all."""
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, text in REFERENCE.items():
        (PAGES / name).write_text(text(), "utf-8")
        print(f"docs: reference/{name}")


if __name__ == "__main__":
    main()
