"""A fleet from flags alone: ``motley serve --static-backends URL,URL``."""

from __future__ import annotations

from typing import Any

from router.domain.errors import ConfigError


def static_fleet(
    urls: str | None, models: str | None, gpus: str | None, engines: str | None
) -> dict[str, Any]:
    """A configuration from flags alone; what they leave out is asked of the engines.

    Raises:
        ConfigError: no URL, lists of different lengths, or an engine that does not say.
    """
    if not urls:
        raise ConfigError(
            "nothing to serve: give --config fleet.yaml, or --static-backends URL,URL with "
            "--static-models NAME"
        )
    backends = _listed(urls)
    given = {
        "model": _column("--static-models", models, len(backends)),
        "gpu": _column("--static-gpus", gpus, len(backends)),
        "engine": _column("--static-engines", engines, len(backends)),
    }
    rows = [
        {"url": url, **{name: values[n] for name, values in given.items() if values}}
        for n, url in enumerate(backends)
    ]
    return {"backends": [row if {"model", "gpu"} <= row.keys() else _asked(row) for row in rows]}


def _asked(row: dict[str, str]) -> dict[str, Any]:
    """One backend, completed by what its engine says."""
    import asyncio

    from router.gateway.admin.identify import identify
    from router.perf.catalog import gpu_names
    from telemetry.http_get import HttpGetter

    async def ask() -> dict[str, Any]:
        fetcher = HttpGetter()
        try:
            return (await identify(row["url"], fetcher, list(gpu_names()))).fields()
        finally:
            fetcher.close()

    known = {**asyncio.run(ask()), **row}
    if "gpu" not in known:
        raise ConfigError(
            f"{row['url']} does not say what card it runs on: give --static-gpus, one of "
            f"{', '.join(gpu_names())}"
        )
    return known


def _listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _column(flag: str, text: str | None, rows: int) -> list[str]:
    values = _listed(text or "")
    if not values:
        return []
    if len(values) == 1:
        return values * rows
    if len(values) != rows:
        raise ConfigError(
            f"{flag} lists {len(values)} values for {rows} backends; give one, or one for each"
        )
    return values
