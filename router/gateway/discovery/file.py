"""Backends from a file that others write: read again whenever it changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from router.config.discovery import FileSource
from router.config.load import read_backends
from router.domain.errors import ConfigError
from router.gateway.discovery.seam import DiscoveryError, Seen
from router.gateway.watch import FileWatch


class FromFile:
    """Implements ``seam.Source`` over a YAML file with a ``backends`` list."""

    def __init__(self, settings: FileSource) -> None:
        self.name = f"file {settings.path}"
        self.retry_s = settings.interval_s
        self._watch = FileWatch(Path(settings.path))

    async def fleets(self) -> AsyncIterator[Seen]:
        """The file's backends, now and after every change.

        Raises:
            DiscoveryError: it cannot be read, or names something that cannot be.
        """
        while True:
            if self._watch.changed():
                try:
                    entries = read_backends(self._watch.path)
                except ConfigError as error:
                    self._watch.forget()
                    raise DiscoveryError(f"{error}") from error
                yield Seen(entries)
            await asyncio.sleep(self.retry_s)
