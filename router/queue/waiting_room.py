"""The router's own queue: bounded, first in first out, with a deadline per request.

A request waits here while its policy finds every candidate saturated (late binding: a request
bound to a slow card cannot come back) or while no backend of its model is usable.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from router.domain.decision import Reject, Wait
from router.domain.request import Request


@dataclass(slots=True)
class Waiting:
    """One queued request.

    Attributes:
        request: the request.
        tried: names of backends that failed it already.
        deadline_s: when it has waited long enough.
    """

    request: Request
    tried: frozenset[str]
    deadline_s: float


class WaitingRoom:
    """Bounded FIFO with deadlines and O(1) removal.

    Args:
        capacity: requests it holds at most.
        timeout_s: how long one may wait.
    """

    def __init__(self, capacity: int, timeout_s: float) -> None:
        self._capacity = capacity
        self._timeout_s = timeout_s
        self._retry_after_s = math.ceil(timeout_s / 4)
        self._entries: dict[str, Waiting] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._entries

    def __iter__(self) -> Iterator[Waiting]:
        """In the order they entered, over a copy, so entries may be removed meanwhile."""
        return iter(list(self._entries.values()))

    @property
    def full(self) -> bool:
        """Whether nobody else may enter."""
        return len(self._entries) >= self._capacity

    def enter(self, request: Request, tried: frozenset[str], now: float) -> None:
        """Queue a request; the caller has checked ``full``."""
        self._entries[request.request_id] = Waiting(request, tried, now + self._timeout_s)

    def turn_away(self, request: Request, wait: Wait) -> Reject:
        """The answer to a request that would have to wait while the room is full."""
        if wait.reason == "no_healthy_backend":
            return Reject(
                "no_healthy_backend",
                f"No backend of {request.model!r} that could take the request is usable now, "
                f"and {len(self)} requests wait already. Try again shortly.",
                self._retry_after_s,
            )
        return Reject(
            "queue_full",
            f"All backends are busy and {len(self)} requests wait already. Try again shortly.",
            self._retry_after_s,
        )

    def give_up(self, request: Request) -> Reject:
        """The answer to a request that has waited long enough."""
        return Reject(
            "queue_timeout",
            f"No backend of {request.model!r} could take the request within "
            f"{self._timeout_s:g} s. Try again later or add capacity.",
            self._retry_after_s,
        )

    def leave(self, request_id: str) -> Waiting | None:
        """Take a request out; ``None`` if it does not wait here."""
        return self._entries.pop(request_id, None)

    def next_deadline_s(self) -> float:
        """Earliest deadline; infinity when nobody waits. All timeouts are equal, so the first."""
        for entry in self._entries.values():
            return entry.deadline_s
        return math.inf
