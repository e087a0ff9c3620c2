"""Decisions are values; only failures are errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from router.domain.fleet import BackendSpec

RejectReason = Literal[
    "unknown_model",
    "context_too_long",
    "no_healthy_backend",
    "queue_full",
    "queue_timeout",
    "all_backends_tried",
    "slo_unattainable",
    "wait_too_long",
    "shed",
]


@dataclass(frozen=True, slots=True)
class Assign:
    """Send the request there, now.

    Attributes:
        backend: where to.
        recalled: requests whose attempts must be broken off first: they wait in the router again
            and have been taken out of the books.
        prefill: where the prompt is computed, if not there; its KV then moves to ``backend``.
    """

    backend: BackendSpec
    recalled: tuple[str, ...] = ()
    prefill: BackendSpec | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Keep it in the router; ``Dispatcher.poll`` will decide it later."""

    reason: Literal["saturated", "no_healthy_backend"]


@dataclass(frozen=True, slots=True)
class Reject:
    """Answer the client with an error.

    Attributes:
        reason: machine-readable.
        message: names the thing and the remedy.
        retry_after_s: when trying again makes sense; ``None`` when it does not.
    """

    reason: RejectReason
    message: str
    retry_after_s: float | None = None


Decision = Assign | Wait | Reject
