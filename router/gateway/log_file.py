"""The decision log on disk: buffered, and never a reason for a request to fail."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from router.domain.errors import ConfigError

log = logging.getLogger("motley.gateway")

FLUSH_S = 1.0


class LogFile:
    """A sink for the decision log.

    Args:
        path: overwritten if it exists: a log belongs to one run.

    Raises:
        ConfigError: the file cannot be written.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._file = Path(path).open("wb")  # noqa: SIM115 - closed by ``close``
        except OSError as error:
            raise ConfigError(f"cannot write the decision log {path}: {error.strerror}") from error
        self._broken = False

    def write(self, line: bytes) -> None:
        """Append one line; after the first error (disk full) the log ends, the service does not."""
        if self._broken:
            return
        try:
            self._file.write(line)
        except OSError as error:
            self._give_up(error)

    async def keep_flushing(self) -> None:
        """Bring what is buffered to the file, every second."""
        while not self._broken:
            await asyncio.sleep(FLUSH_S)
            try:
                self._file.flush()
            except OSError as error:
                self._give_up(error)

    def close(self) -> None:
        """Write what is left."""
        try:
            self._file.close()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        if not self._broken:
            self._broken = True
            log.error("decision log %s ends here: %s", self._path, error.strerror)
