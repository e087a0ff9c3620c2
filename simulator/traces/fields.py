"""Names of columns in Motley's own trace format, and how a row of them becomes a request.

``arrival_s, input_tokens, output_tokens`` and, if known, ``model, class, tenant (or client_id),
session, max_tokens, prefix_hashes, prefix_block_tokens``; names that others use for the same are
taken too. Without ``arrival_s`` the file holds lengths only and needs an arrival process. The
columns of a per-request result are passed over, so that a result file can be replayed.

A moment is ``arrival_s``, ``arrival_ms``, or a ``timestamp`` written as a date with a time. A
``timestamp`` that is a number may be in seconds or in milliseconds, which would be a thousand
times the load, so it is not guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches

from router.domain.errors import TraceError
from simulator.traces.record import TraceRecord

LENGTHS = ("input_tokens", "output_tokens")
DEFAULT_BLOCK_TOKENS = 16

OWN_HEADER = "arrival_s,input_tokens,output_tokens"
_DATES = ("timestamp", "time", "arrival_time", "start_time")
_ALIASES = {
    "client_id": "tenant",
    "slo_class": "class",
    "arrival_ms": "arrival_s",
    **dict.fromkeys(_DATES, "arrival_s"),
    **dict.fromkeys(
        ("prompt_tokens", "input_length", "input_len", "prompt_len", "context_tokens"),
        "input_tokens",
    ),
    **dict.fromkeys(
        ("completion_tokens", "output_length", "output_len", "generated_tokens"), "output_tokens"
    ),
    # Vidur's trace files.
    "arrived_at": "arrival_s",
    "num_prefill_tokens": "input_tokens",
    "num_decode_tokens": "output_tokens",
}
_KNOWN = frozenset(
    (
        *("arrival_s", "input_tokens", "output_tokens", "max_tokens"),
        *("model", "class", "tenant", "session"),
        *("prefix_hashes", "prefix_block_tokens"),
    )
)
_HASH_BITS = 2**63 - 1
RESULT_FIELDS = frozenset(
    (
        *("request_id", "policy", "seed", "status", "backend", "gpu", "attempts", "slo_met", "qoe"),
        *("finish_reason", "carried_tokens"),
        *("dispatched_s", "first_token_s", "finished_s", "ttft_s", "tpot_s", "e2e_s"),
        *("cached_tokens", "predicted_ttft_s", "predicted_tpot_s", "predicted_output_tokens"),
    )
)


class UnknownFieldError(ValueError):
    """A column that is neither part of the format nor of a result file."""


def any_known(names: Iterable[str]) -> bool:
    """Whether at least one of these (lower-case) names belongs to the format."""
    return any(_ALIASES.get(name, name) in _KNOWN for name in names)


def canonical_names(names: Iterable[str]) -> dict[str, str]:
    """Map the names found in a file to the format's own; result columns are left out.

    Raises:
        UnknownFieldError: a name that means nothing here (a typo would be lost silently), or two
            that mean the same.
    """
    known: dict[str, str] = {}
    for name in names:
        plain = name.strip().lower()
        canonical = _ALIASES.get(plain, plain)
        if canonical in known.values():
            raise UnknownFieldError(f"field {name!r} gives {canonical} a second time; keep one")
        if canonical in _KNOWN:
            known[name] = canonical
        elif plain not in RESULT_FIELDS:
            near = get_close_matches(plain, _KNOWN, n=1)
            hint = f" did you mean {near[0]!r}?" if near else ""
            raise UnknownFieldError(
                f"unknown field {name!r};{hint} known: {', '.join(sorted(_KNOWN))}; rename it, or "
                "leave it out"
            )
    return known


def row_parser(
    names: Iterable[str], moment: Callable[[str], float]
) -> Callable[[Mapping[str, object]], TraceRecord]:
    """Return a function from one row (by the file's own names) to a request.

    Args:
        names: the file's own.
        moment: reads a date with a time, in seconds from whenever; one for a whole file.

    Raises:
        UnknownFieldError: a name that means nothing here, or a length missing.
    """
    known = canonical_names(names)
    present = set(known.values())
    missing = [name for name in LENGTHS if name not in present]
    if missing:
        raise UnknownFieldError(f"field {missing[0]!r} is missing")
    pairs = tuple((found, name, _reader(found, moment)) for found, name in known.items())
    runs: set[tuple[object, object]] = set()

    def parse(row: Mapping[str, object]) -> TraceRecord:
        runs.add((row.get("policy"), row.get("seed")))
        if len(runs) > 1:  # each would repeat all requests
            raise TraceError("holds the results of several runs; keep those of one to replay it")
        values = {
            name: read(row[found]) for found, name, read in pairs if not _empty(row.get(found))
        }
        return build_record(values)

    return parse


def _reader(found: str, moment: Callable[[str], float]) -> Callable[[object], object]:
    """How the values of a column become those of the format."""
    plain = found.strip().lower()
    if plain == "arrival_ms":
        return lambda value: _number(value) / 1000.0
    if plain not in _DATES:
        return lambda value: value

    def dated(value: object) -> float:
        if not isinstance(value, str) or _is_number(value):
            raise ValueError(
                f"{found} {value!r} is no date: name the column arrival_s or arrival_ms, whichever "
                "it is"
            )
        return moment(value)

    return dated


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def build_record(values: Mapping[str, object]) -> TraceRecord:
    """Build a request from values by canonical name.

    Raises:
        ValueError: a length is missing or something is not a number.
    """
    for name in LENGTHS:
        if name not in values:
            raise ValueError(f"{name} is empty")
    hashes = _hashes(values.get("prefix_hashes"))
    block = whole(values.get("prefix_block_tokens", DEFAULT_BLOCK_TOKENS)) if hashes else 0
    if hashes and block < 1:
        raise ValueError(f"prefix_block_tokens must be at least 1, not {block}")
    tokens = whole(values["input_tokens"])
    return TraceRecord(
        arrival_s=_number(values.get("arrival_s", 0.0)),
        input_tokens=tokens,
        output_tokens=whole(values["output_tokens"]),
        model=str(values.get("model", "")),
        slo_class=str(values.get("class", "")),
        tenant=str(values.get("tenant", "")),
        session=str(values.get("session", "")),
        max_tokens=whole(values["max_tokens"]) if "max_tokens" in values else None,
        prefix_hashes=hashes[: tokens // block] if hashes else (),
        prefix_block_tokens=block,
    )


def whole(value: object) -> int:
    """Convert to ``int``; ``"12"`` and ``12.0`` pass, ``12.5`` and ``True`` do not.

    Raises:
        ValueError: it is not a whole number.
    """
    number = _number(value)
    if number != int(number):
        raise ValueError(f"{value!r} is not a whole number")
    return int(number)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is not a number")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not a finite number")
    return number


def _empty(value: object) -> bool:
    return value is None or value == ""


def _hashes(value: object) -> tuple[int, ...]:
    """Accept a list, or text separated by spaces, commas or semicolons."""
    if value is None:
        return ()
    if isinstance(value, str):
        parts = value.replace(";", " ").replace(",", " ").split()
        return tuple(int(part) & _HASH_BITS for part in parts)
    if isinstance(value, list | tuple):
        return tuple(_whole_hash(part) & _HASH_BITS for part in value)
    raise ValueError(f"prefix_hashes {value!r} is not a list of numbers")


def _whole_hash(value: object) -> int:
    """Hashes are 64 bits wide: a detour over ``float`` would merge them."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"prefix hash {value!r} is not a whole number")
    return value
