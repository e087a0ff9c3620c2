"""Notice that a file changed, by looking: on any file system, and behind Kubernetes' symlinks."""

from __future__ import annotations

from pathlib import Path

_Mark = tuple[int, int, int]


class FileWatch:
    """Says whether a file is another than at the last look.

    Args:
        path: may be missing, appear and disappear.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last: _Mark | str | None = "never looked"

    def changed(self) -> bool:
        """Whether it changed since the last look; the first look says yes."""
        mark = self._mark()
        differs = mark != self._last
        self._last = mark
        return differs

    def forget(self) -> None:
        """The next look says yes."""
        self._last = "never looked"

    def _mark(self) -> _Mark | None:
        try:
            facts = self.path.stat()
        except OSError:
            return None
        return (facts.st_mtime_ns, facts.st_size, facts.st_ino)
