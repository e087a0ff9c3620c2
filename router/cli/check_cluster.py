"""``motley check --kubernetes``: the cluster, before or after the chart is installed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from router.config.load import MotleyConfig
    from router.domain.fleet import BackendSpec
    from router.gateway.preflight.finding import Finding, Thing


def manifests_of(path: Path) -> tuple[list[Thing], dict[str, Any]]:
    """A rendered chart, and the gateway's file in it.

    Raises:
        ConfigError: it is none.
    """
    from router.gateway.preflight.manifests import config_in, read_file, read_manifests

    name = "standard input" if str(path) == "-" else str(path)
    things = read_manifests(sys.stdin.read(), name) if str(path) == "-" else read_file(path)
    return things, config_in(things, name)


def pools_of(things: Sequence[Thing]) -> tuple[BackendSpec, ...]:
    """The engines of a rendered chart; none where one of them cannot run, which is told apart."""
    from router.config.load import load_config
    from router.domain.errors import BadInputError
    from router.gateway.preflight.manifests import pools_in

    content = pools_in(things)
    try:
        return load_config(content).fleet.backends if content else ()
    except BadInputError:
        return ()


def look_at_cluster(
    config: MotleyConfig, things: Sequence[Thing], account: str = ""
) -> list[Finding]:
    """What is wrong with it.

    Raises:
        ConfigError: the extra is missing, or no cluster is configured.
    """
    from router.domain.errors import ConfigError

    if find_spec("kubernetes_asyncio") is None:
        raise ConfigError("--kubernetes needs an extra: pip install 'motley-router[kubernetes]'")
    return asyncio.run(_look(config, things, account))


async def _look(config: MotleyConfig, things: Sequence[Thing], account: str) -> list[Finding]:
    from router.gateway.placement.cluster import connect
    from router.gateway.preflight.run import look

    client = await connect()
    try:
        return await look(client, config, datetime.now(UTC), things=things, account=account)
    finally:
        await client.close()


def print_cluster(found: Sequence[Finding]) -> None:
    """A line each, problems first."""
    for one in found:
        typer.echo(f"{one.kind}: {one.text}")
    if not any(one.kind == "problem" for one in found):
        typer.echo("The cluster: nothing looks wrong.")
