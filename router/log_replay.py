"""Replay of a decision log: the same calls must lead to the same answers.

Feeding the calls into a fresh dispatcher must write the same bytes again: that is the proof that
a live run and a simulated run use one decision core (design: log replay).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from router.decision_line import Line
from router.decision_log import LoggingDispatcher, Sink
from router.domain.errors import DamagedLogError, MotleyError, ReplayError
from router.domain.fleet import BackendSpec
from router.domain.request import LengthForecast, Request
from router.domain.slo import slo_from_json
from router.domain.state import EngineSignals, LinearCost, RemoteLoad
from router.fleet_state.capability import Capability
from router.policies.registry import from_recipe

# What a line that somebody changed may lead to: names that are missing, too many or unknown,
# values of another type.
_UNPLAYABLE = (MotleyError, KeyError, TypeError, ValueError, AttributeError)


def replay(lines: Iterable[bytes], build: Callable[[Line, Sink], LoggingDispatcher]) -> int:
    """Feed a log into a fresh dispatcher and compare what it writes, byte for byte.

    Args:
        lines: the log, with its header line.
        build: makes the dispatcher from the header, already logging to the given sink
            (``router.config.build.rebuild_dispatcher``).

    Returns:
        How many calls were replayed.

    Raises:
        ReplayError: a line differs; its number is named.
        DamagedLogError: a line cannot be replayed (its number is named), or there is none.
    """
    written: list[bytes] = []
    dispatcher: LoggingDispatcher | None = None
    number = 0
    for number, raw in enumerate(lines, start=1):
        line = _decode(raw, number)
        try:
            if dispatcher is None:
                dispatcher = _open(line, build, written.append)
            else:
                _call(dispatcher, line)
        except _UNPLAYABLE as error:
            raise DamagedLogError(f"line {number}: cannot be replayed: {_reason(error)}") from error
        if written.pop() != raw.rstrip(b"\n") + b"\n":
            raise ReplayError(
                f"line {number}: the replayed call {line['call']!r} answers otherwise"
            )
    if dispatcher is None:
        raise DamagedLogError("the decision log is empty")
    return number - 1


def _decode(raw: bytes, number: int) -> Line:
    try:
        line = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedLogError(f"line {number}: not JSON ({error})") from error
    if not isinstance(line, dict):
        raise DamagedLogError(f"line {number}: not a JSON object")
    return line


def recorded_capability(facts: Mapping[str, Any]) -> Capability:
    """A capability as a log holds it."""
    return Capability(**{**facts, "cost": LinearCost(**facts["cost"])})


def _open(
    line: Line, build: Callable[[Line, Sink], LoggingDispatcher], sink: Sink
) -> LoggingDispatcher:
    if line.get("call") != "open":
        raise DamagedLogError("a decision log begins with its 'open' line")
    return build(line, sink)


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return str(error)


def _call(dispatcher: LoggingDispatcher, line: Line) -> None:
    args, now = dict(line["args"]), line["now"]
    match line["call"]:
        case "dispatch":
            facts = args["request"]
            facts["prefix_hashes"] = tuple(facts["prefix_hashes"])
            facts["forecast"] = LengthForecast(**facts["forecast"])
            facts["fallbacks"] = tuple(facts.get("fallbacks", ()))
            if "slo" in facts:
                facts["slo"] = slo_from_json(facts["slo"])
            dispatcher.dispatch(Request(**facts), now)
        case "scrape":
            dispatcher.scrape(args["backend"], EngineSignals(**args["signals"]), now)
        case "add_backend":
            known = recorded_capability(args["capability"])
            dispatcher.add_backend(BackendSpec(**args["spec"]), now, capability=known)
        case (
            "redispatch"
            | "first_token"
            | "prefilled"
            | "restarted"
            | "cached"
            | "presume_first_token"
            | "complete"
            | "fail"
            | "refuse"
            | "cancel"
            | "poll"
            | "hedge"
            | "win"
            | "withdraw"
            | (
                "correct"
                | "recall"
                | "set_prices"
                | "set_health"
                | "drain"
                | "resume"
                | "remove_backend"
            ) as call
        ):
            getattr(dispatcher, call)(**args, now=now)
        case "share":
            loads = {name: RemoteLoad(**load) for name, load in args["loads"].items()}
            heard = [(name, tuple(hashes), size) for name, hashes, size in args["prefixes"]]
            dispatcher.share(loads, now, prefixes=heard)
        case "use_policy":
            dispatcher.use_policy(from_recipe(args["recipe"]), args["recipe"], now)
        case unknown:
            raise DamagedLogError(f"unknown call {unknown!r}")
