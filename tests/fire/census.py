"""What must be as it was when a fault is over: descriptors, tasks, objects of requests."""

from __future__ import annotations

import asyncio
import gc
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from router.gateway.attempt import Attempt
from router.gateway.connection import Connection
from router.gateway.exchange import Exchange
from router.gateway.race import Second
from router.gateway.ticket import Ticket

OF_A_REQUEST = (Attempt, Connection, Exchange, Second, Ticket)
_FDS = Path("/proc/self/fd")


def descriptors() -> int:
    """Open file descriptors of this process; 0 where nobody tells."""
    return len(os.listdir(_FDS)) if _FDS.exists() else 0


def rss_bytes(pid: int | None = None) -> int:
    """Resident memory of a process, from Linux's ``/proc``."""
    pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def living() -> dict[str, int]:
    """Objects that belong to one request each, and are still there."""
    gc.collect()
    kinds = Counter(type(one).__name__ for one in gc.get_objects() if isinstance(one, OF_A_REQUEST))
    return dict(kinds)


@asynccontextmanager
async def nothing_left_behind() -> AsyncIterator[None]:
    """Around a gateway and its engines: afterwards nothing of them is left.

    Raises:
        AssertionError: descriptors, tasks or objects of a request are more than before.
    """
    # A loop's first listener reserves a descriptor for the day when there are no more.
    (await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)).close()
    await asyncio.sleep(0)
    before = (descriptors(), len(asyncio.all_tasks()), living())
    yield
    for _ in range(200):  # a timer that is still to go off may hold what is over
        few = descriptors() <= before[0] and len(asyncio.all_tasks()) <= before[1]
        if few and living() == before[2]:
            break
        await asyncio.sleep(0.01)
    after = (descriptors(), len(asyncio.all_tasks()), living())
    assert after[0] <= before[0], f"file descriptors: {before[0]} -> {after[0]}"
    assert after[1] <= before[1], asyncio.all_tasks()
    assert after[2] == before[2], f"objects of a request: {before[2]} -> {after[2]}"
