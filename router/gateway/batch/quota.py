"""How much the holder of one key may have stored: the disk is everybody's."""

from __future__ import annotations

from dataclasses import dataclass

from router.gateway.batch.store import Store
from router.gateway.problems import Problem

FULL = "storage_quota_exceeded"
OUTPUTS = 2
"""Files that a batch may come to: answers and errors."""


@dataclass(frozen=True, slots=True)
class Quota:
    """Limits of one holder; without keys everybody is one holder.

    Attributes:
        most_files: uploaded and written.
        most_bytes: in them.
        most_open: batches that are not over.
    """

    most_files: int = 10_000
    most_bytes: int = 10 * 1024**3
    most_open: int = 100

    def no_more(
        self, store: Store, owner: str, *, files: int = 0, more_bytes: int = 0
    ) -> Problem | None:
        """Why no more may be stored.

        Args:
            store: what there is.
            owner: whose.
            files: that are to be added.
            more_bytes: in them.
        """
        kept, size_bytes = store.held(owner)
        if kept + files > self.most_files:
            what = f"{kept} files are stored in your name; at most {self.most_files} may be"
            return _full(f"{what} (batch.max_files_per_key; a batch needs {OUTPUTS})")
        if size_bytes + more_bytes > self.most_bytes or size_bytes >= self.most_bytes:
            gib = f"{(size_bytes + more_bytes) / 1024**3:.3g} GiB"
            most = f"{self.most_bytes / 1024**3:.3g} GiB"
            what = f"Your files would come to {gib}; at most {most} may be stored in your name"
            return _full(f"{what} (batch.max_gib_per_key)")
        return None

    def no_more_batches(self, store: Store, owner: str) -> Problem | None:
        """Why no batch may be begun."""
        begun = sum(batch.owner == owner for batch in store.unfinished())
        if begun >= self.most_open:
            message = (
                f"{begun} batches of yours are not over, as many as may be at once "
                "(batch.max_open_per_key). Wait for one, or cancel one."
            )
            return Problem(403, message, code="too_many_batches")
        return self.no_more(store, owner, files=OUTPUTS * (begun + 1))


def _full(what: str) -> Problem:
    message = f"{what}. Delete some (DELETE /v1/files/ID), or ask the operator for more."
    return Problem(403, message, code=FULL)
