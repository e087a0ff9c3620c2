"""Faults an emulated engine can be told to have, through ``/fault``.

``GET /fault`` shows them, ``POST /fault`` sets all of them (``{}`` makes the engine healthy),
except a kill, after which there is nobody left to ask.
"""

from __future__ import annotations

import msgspec

from simulator.engine_server.asks import decode
from simulator.engine_server.refusal import InvalidBody


class Faults(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """What is wrong with the engine.

    Attributes:
        slow_factor: iterations take so many times as long: a throttled or shared card.
        hang: generate nothing, answer ``/metrics`` all the same: a stalled worker.
        error_status: answer every completion with this HTTP status.
        cut_after_tokens: drop the connection of every stream after so many tokens.
        kill: crash now: in-flight requests are lost, connections refused.
        restart_after_s: real seconds after a kill until the engine is back, its cache cold;
            ``None``: never.
    """

    slow_factor: float = 1.0
    hang: bool = False
    error_status: int | None = None
    cut_after_tokens: int | None = None
    kill: bool = False
    restart_after_s: float | None = None


def read_faults(body: bytes) -> Faults:
    """Read a ``/fault`` body.

    Raises:
        InvalidBody: it does not parse, or a value makes no sense; names the field.
    """
    faults = decode(body, Faults)
    if not 0 < faults.slow_factor < float("inf"):
        raise InvalidBody("slow_factor must be positive", "body.slow_factor")
    if faults.error_status is not None and not 400 <= faults.error_status <= 599:
        raise InvalidBody("error_status must be from 400 to 599", "body.error_status")
    if faults.cut_after_tokens is not None and faults.cut_after_tokens < 0:
        raise InvalidBody("cut_after_tokens must not be negative", "body.cut_after_tokens")
    if faults.restart_after_s is not None and not faults.restart_after_s >= 0:
        raise InvalidBody("restart_after_s must not be negative", "body.restart_after_s")
    return faults
