"""Who gets a backend's answer, and how there may be none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from router.gateway.wire import Headers

FailureKind = Literal["connect", "broken", "garbage", "timeout"]


@dataclass(frozen=True, slots=True)
class UpstreamFailure:
    """How a backend failed to answer.

    Attributes:
        kind: ``connect`` (never reached), ``broken`` (closed before the answer's end),
            ``garbage`` (not HTTP), ``timeout`` (too slow for the limits in force).
        message: for people.
        stale: a kept-alive connection that the backend closed before it answered a byte:
            the race of every HTTP client, and no fault of the backend.
    """

    kind: FailureKind
    message: str
    stale: bool = False


class Receiver(Protocol):
    """Who gets the answer. Called from the event loop, never after ``on_end``/``on_failed``."""

    def on_sent(self) -> None:
        """The connection stands and the request has been handed to it."""

    def on_head(self, status: int, headers: Headers) -> None:
        """Status and headers; names in lower case."""

    def on_data(self, data: bytes) -> None:
        """Some of the body, as it came: at most once per read."""

    def on_end(self) -> None:
        """The answer is complete."""

    def on_failed(self, failure: UpstreamFailure) -> None:
        """There will be no complete answer."""
