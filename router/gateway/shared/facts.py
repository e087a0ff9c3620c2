"""What a replica pins on the board, and how it is read."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from router.domain.state import EngineSignals, RemoteLoad
from router.fleet_state.fleet import FleetState

Prefix = tuple[str, tuple[int, ...], int]
"""A backend, the hashes of a prompt's beginning sent there, tokens a block."""


class Facts(msgspec.Struct):
    """One replica's facts.

    Attributes:
        loads: by backend, what this replica has under way there.
        active: by holder of a key, requests under way.
        prefixes: the newest prompts sent, each with its number.
        token: fencing token of the leader; 0 for who is none.
        born: of the board that gave it; tokens of others do not compare.
        prices: the leader's plan, by group.
        signals: the leader's scrape, by backend; ``observed_s`` is the age.
    """

    loads: dict[str, RemoteLoad] = {}
    active: dict[str, int] = {}
    prefixes: list[tuple[int, Prefix]] = []
    token: int = 0
    prices: dict[str, float] = {}
    signals: dict[str, EngineSignals] = {}
    born: str = ""


_decoder = msgspec.msgpack.Decoder(Facts)
encode = msgspec.msgpack.Encoder().encode


def decode(data: bytes) -> Facts | None:
    """Another replica's facts; ``None`` if it speaks another version."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def told_signals(state: FleetState, now: float) -> dict[str, EngineSignals]:
    """The scraper's latest, with ages instead of times: clocks differ."""
    return {
        backend.spec.name: replace(signals, observed_s=now - signals.observed_s)
        for backend in state.backends
        if (signals := backend.signals) is not None
    }
