"""Faults and changes on a timeline: what happens to which backend, and when.

A YAML list: ``- {at_s: 60, backend: t4-0, kind: slow, factor: 3, for_s: 120}``.

==========  ======================================================================================
kind        what happens at ``at_s``
==========  ======================================================================================
slow        iterations take ``factor`` times as long (thermal throttling); ``for_s`` ends it
kill        the engine dies: all in it is lost, connections are refused; after ``for_s``, if given,
            it is back with a cold cache
restart     kill, and back after ``for_s`` (default 30 s)
hang        accepts requests and makes no progress for ``for_s`` (default: for ever)
error       answers every new request with HTTP 500 for ``for_s`` (default: for ever)
join        the backend is not in the fleet before
drain       nothing new is sent there; after ``for_s``, if given, it is taken back
==========  ======================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from router.domain.errors import ConfigError, UnknownNameError

FaultKind = Literal["slow", "kill", "hang", "error", "restart", "join", "drain"]
_RESTART_S = 30.0


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of the timeline; see the table above.

    Attributes:
        at_s: when, on the replay's clock.
        backend: name of the backend.
        kind: what.
        factor: of ``slow``; above 1 is slower.
        for_s: how long; ``None`` means for ever, or the kind's default.
    """

    at_s: float
    backend: str
    kind: FaultKind
    factor: float | None = None
    for_s: float | None = None

    @property
    def lasts_s(self) -> float:
        """How long it lasts; infinity for ever."""
        if self.for_s is None:
            return _RESTART_S if self.kind == "restart" else math.inf
        return self.for_s


def load_faults(path: Path) -> list[Fault]:
    """Read a timeline.

    Raises:
        ConfigError: unreadable file, unknown field or kind, numbers that make no sense.
    """
    try:
        faults = msgspec.yaml.decode(path.read_bytes(), type=list[Fault])
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: not a list of faults: {error}") from None
    for number, fault in enumerate(faults, start=1):
        _check(fault, f"{path}: fault {number}")
    return sorted(faults, key=lambda fault: fault.at_s)


def check_backends(faults: Sequence[Fault], names: Iterable[str]) -> None:
    """Make sure that every fault happens to a backend of the fleet.

    Raises:
        UnknownNameError: one does not.
    """
    known = set(names)
    for fault in faults:
        if fault.backend not in known:
            raise UnknownNameError("backend", fault.backend, known)


def _check(fault: Fault, where: str) -> None:
    if not (fault.at_s >= 0 and math.isfinite(fault.at_s)):
        raise ConfigError(f"{where}: at_s must be a number of at least 0, not {fault.at_s}")
    if fault.for_s is not None and not fault.for_s > 0:
        raise ConfigError(f"{where}: for_s must be more than 0, not {fault.for_s}")
    if fault.kind == "slow":
        if fault.factor is None or not (fault.factor > 0 and math.isfinite(fault.factor)):
            raise ConfigError(f"{where}: slow needs a factor above 0, as in factor: 3")
    elif fault.factor is not None:
        raise ConfigError(f"{where}: only slow takes a factor, {fault.kind} does not")
    if fault.kind == "join" and fault.for_s is not None:
        raise ConfigError(f"{where}: join takes no for_s; add a drain later")
