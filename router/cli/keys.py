"""``motley keys``: API keys in a file, kept as digests."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Annotated

import typer

from router.domain.errors import ConfigError

app = typer.Typer(
    name="keys",
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Make, list and revoke API keys. The file holds digests only, and a running gateway whose "
    "access.keys_file it is takes changes within a second.",
)

FileOption = Annotated[
    Path, typer.Option("--file", "-f", help="The keys file (access.keys_file).", dir_okay=False)
]
_LIMITS = {
    "requests_per_minute": "requests/min",
    "tokens_per_minute": "tokens/min",
    "max_concurrent": "at once",
    "tokens_per_day": "tokens/day",
    "usd_per_day": "USD/day",
}
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Who holds it; also the tenant of its requests.")],
    file: FileOption = Path("keys.json"),
    model: Annotated[
        list[str] | None, typer.Option(help="A model it may use; repeat for more. Default: all.")
    ] = None,
    slo_class: Annotated[
        list[str] | None,
        typer.Option("--class", help="A service class it may ask for; repeat for more."),
    ] = None,
    default_class: Annotated[
        str | None, typer.Option(help="The class of requests that ask for none.")
    ] = None,
    requests_per_minute: Annotated[float | None, typer.Option(min=0.001)] = None,
    tokens_per_minute: Annotated[float | None, typer.Option(min=0.001)] = None,
    max_concurrent: Annotated[int | None, typer.Option(min=1)] = None,
    tokens_per_day: Annotated[float | None, typer.Option(min=0.001)] = None,
    usd_per_day: Annotated[
        float | None, typer.Option(min=0.000001, help="By access.prices; UTC days.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="After this long: 12h, 30d, 8w.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="May change workers and reload.")] = False,
) -> None:
    """Make a key and print it, once: nobody can read it from the file later.

    Examples:

    [bold]motley keys create team-a --model llama-3.1-8b --tokens-per-minute 60000[/bold]

    [bold]motley keys create ops --admin --expires 30d --file /etc/motley/keys.json[/bold]
    """
    from pydantic import ValidationError

    from router.config.access import KeySection
    from router.config.load import explain
    from router.gateway.access.keys_file import add_key, make_key

    key, digest = make_key()
    now = int(time.time())
    try:
        entry = KeySection(
            name=name,
            hash=digest,
            created_unix_s=now,
            expires_unix_s=None if expires is None else now + seconds(expires),
            models=model or None,
            classes=slo_class or None,
            default_class=default_class,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            max_concurrent=max_concurrent,
            tokens_per_day=tokens_per_day,
            usd_per_day=usd_per_day,
            admin=admin,
        )
    except ValidationError as error:
        raise ConfigError(explain(error)) from error
    add_key(file, entry)
    typer.echo(key)
    typer.echo(f"Added {name!r} to {file}. The key is not kept: store it now.", err=True)


@app.command("list")
def list_keys(file: FileOption = Path("keys.json")) -> None:
    """Show every key's holder, rights and limits; never the key.

    Example: [bold]motley keys list --file /etc/motley/keys.json[/bold]
    """
    from rich.console import Console
    from rich.table import Table

    from router.gateway.access.keys_file import read_keys

    table = Table(box=None)
    for column in ("name", "models", "classes", "limits", "expires", "admin"):
        table.add_column(column, overflow="fold")
    for key in read_keys(file):
        limits = [(getattr(key, field), unit) for field, unit in _LIMITS.items()]
        table.add_row(
            key.name,
            ", ".join(key.models or ["all"]),
            ", ".join(key.classes or ["all"]),
            "\n".join(f"{amount:g} {unit}" for amount, unit in limits if amount) or "none",
            _day(key.expires_unix_s),
            "yes" if key.admin else "",
        )
    Console(highlight=False).print(table)


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Whose key.")],
    file: FileOption = Path("keys.json"),
) -> None:
    """Remove a key; a running gateway refuses it within a second.

    Example: [bold]motley keys revoke team-a --file /etc/motley/keys.json[/bold]
    """
    from router.gateway.access.keys_file import remove_key

    remove_key(file, name)
    typer.echo(f"Revoked the key of {name!r}.")


def seconds(text: str) -> int:
    """A duration like ``12h`` or ``30d``.

    Raises:
        ConfigError: it is none.
    """
    match = re.fullmatch(r"(\d+)([smhdw])", text.strip())
    if match is None or not int(match[1]):
        raise ConfigError(f"--expires: {text!r} is no duration; write 12h, 30d or 8w")
    return int(match[1]) * _UNITS_S[match[2]]


def _day(unix_s: int | None) -> str:
    if unix_s is None:
        return "never"
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(unix_s))
