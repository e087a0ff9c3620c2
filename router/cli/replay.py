"""``motley replay``: prove that a decision log reproduces its own choices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from router.config.build import rebuild_dispatcher
from router.domain.errors import ConfigError
from router.log_replay import replay as replay_log


def replay(
    log: Annotated[Path, typer.Argument(help="Decision log written by serve or simulate.")],
) -> None:
    """Feed a decision log into a fresh dispatcher and compare every choice, byte for byte.

    Exits with 1 and the number of the first line that differs, with 2 and that of a line that
    cannot be replayed.
    """
    try:
        with log.open("rb") as lines:
            calls = replay_log(lines, rebuild_dispatcher)
    except OSError as error:
        raise ConfigError(f"cannot read {log}: {error.strerror}") from error
    typer.echo(f"{calls} calls replayed, every answer the same")
