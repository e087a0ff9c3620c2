"""``motley metrics``: every metric that the gateway exports, from the table that defines them."""

from __future__ import annotations

import typer


def metrics() -> None:
    """Print every metric of ``/metrics`` as a Markdown table: name, type, labels, meaning."""
    from telemetry.metric_table import markdown

    typer.echo(markdown(), nl=False)
