"""What was learned from traffic and stays true over a restart, as one document.

Kept is what is slow to learn and about the work or the hardware: how long answers are, by model,
tenant, prompt and limit; how fast each backend is, how surely, and the level that its drift is
judged by; bytes a token, by model; and the tail of E2E that the policy weighs by, as the first
answers after a start are the short ones. Not kept is what is about the moment, or learned in
no time: queues, requests under way, caches and the trust in them, breakers, prices, the caution of
the class queue, which twenty misses teach.

The document is JSON, so that people can read it. Each part stands for itself: one that makes no
sense is left out and named, the others count. What is old counts less: lengths by a half-life,
speeds by a variance that grows (``LogFilter.restore``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

import msgspec

from router.domain.errors import LearnedError
from router.perf.length_kept import LEAF_DEPTH, LengthCell
from telemetry.speeds import MOST_SPEEDS, Speed

VERSION: Final = 1
MOST_BYTES: Final = 32 * 1024 * 1024
"""A file beyond is not ours: 4,096 leaves and a thousand backends make 2 MB."""
MOST_CELLS, MOST_MODELS, MOST_KNOWN = 16_384, 4_096, 64
MOST_NAME = 256
"""Longer names of models, tenants and backends are not kept: clients make some of them up."""
HALF_LIFE_S = 7 * 86_400.0
"""Of lengths."""
MOST_TOKENS, MOST_BUCKET = 1e8, 128

Origin = Literal["gateway", "simulation", "trace"]
PromptSums = dict[str, tuple[float, float]]
Known = dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class Learned:
    """What was learned.

    Attributes:
        origin: by a gateway, in a simulation, or from a trace alone. What a simulation says of
            lengths is true of its trace; its speeds are true of nothing but itself.
        written_unix_s: wall clock.
        lengths, speeds: see ``LengthCell`` and ``Speed``.
        prompts: by model, bytes and tokens of prompts.
        policies: by policy, what it knows.
    """

    origin: Origin
    written_unix_s: float
    lengths: list[LengthCell] = field(default_factory=list)
    speeds: list[Speed] = field(default_factory=list)
    prompts: PromptSums = field(default_factory=dict)
    policies: Known = field(default_factory=dict)

    def age_s(self, now_unix_s: float) -> float:
        """Since it was written; 0 where the clock was set back."""
        return max(0.0, now_unix_s - self.written_unix_s)

    def lengths_keep(self, now_unix_s: float) -> float:
        """Share of their weight that lengths still have."""
        return float(0.5 ** (self.age_s(now_unix_s) / HALF_LIFE_S))


class _File(msgspec.Struct):
    """The outside: parts are looked at one by one."""

    motley_learned: int
    origin: Origin
    written_unix_s: float
    lengths: msgspec.Raw = msgspec.Raw(b"[]")
    speeds: msgspec.Raw = msgspec.Raw(b"[]")
    prompts: msgspec.Raw = msgspec.Raw(b"{}")
    policies: msgspec.Raw = msgspec.Raw(b"{}")


class _Version(msgspec.Struct):
    motley_learned: int


_encode = msgspec.json.Encoder().encode
_outside, _version = msgspec.json.Decoder(_File), msgspec.json.Decoder(_Version)
_cells = msgspec.json.Decoder(list[tuple[list[str | int], float, float, float, float]])
_speeds = msgspec.json.Decoder(list[Speed])
_prompts = msgspec.json.Decoder(PromptSums)
_policies = msgspec.json.Decoder(Known)
T = TypeVar("T")


def encode(learned: Learned) -> bytes:
    """The document, without what is not to be kept; never longer than ``MOST_BYTES``."""
    cells = [cell for cell in learned.lengths if _cell_flaw(cell) is None][-MOST_CELLS:]
    speeds = [s for s in learned.speeds if _speed_flaw(s) is None][-MOST_SPEEDS:]
    prompts = {
        model: sums for model, sums in learned.prompts.items() if _sums_flaw(model, sums) is None
    }
    facts: dict[str, Any] = {
        "motley_learned": VERSION,
        "origin": learned.origin,
        "written_unix_s": learned.written_unix_s,
        "policies": learned.policies,
        "prompts": dict(list(prompts.items())[-MOST_MODELS:]),
        "speeds": speeds,
        "lengths": [
            (list(c.key), c.weight, c.mean_tokens, c.p90_tokens, c.square_tokens) for c in cells
        ],
    }
    return _encode(facts) + b"\n"


def decode(data: bytes) -> tuple[Learned, list[str]]:
    """The document, and what of it was left out, each with its reason.

    Raises:
        LearnedError: nothing of it can be used.
    """
    outside = _opened(data)
    flaws: list[str] = []
    learned = Learned(
        outside.origin,
        outside.written_unix_s,
        _part("lengths", outside.lengths, _read_cells, [], flaws),
        _part("speeds", outside.speeds, _read_speeds, [], flaws),
        _part("prompts", outside.prompts, _read_prompts, {}, flaws),
        _part("policies", outside.policies, _read_policies, {}, flaws),
    )
    return learned, flaws


def _opened(data: bytes) -> _File:
    if len(data) > MOST_BYTES:
        raise LearnedError(f"it is larger than {MOST_BYTES // 2**20} MiB")
    try:
        version = _version.decode(data).motley_learned
        if version != VERSION:
            newer = "newer" if version > VERSION else "other"
            raise LearnedError(
                f"it is of a {newer} version ({version}; this Motley reads {VERSION})"
            )
        outside = _outside.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LearnedError(f"it is no document of what was learned ({error})") from error
    if not 0.0 <= outside.written_unix_s < 1e11:
        raise LearnedError(f"it says it was written at {outside.written_unix_s:g}")
    return outside


def _part(
    name: str, raw: msgspec.Raw, read: Callable[[msgspec.Raw], T], nothing: T, flaws: list[str]
) -> T:
    try:
        return read(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, _FlawError) as error:
        flaws.append(f"{name}: {error}")
        return nothing


class _FlawError(ValueError):
    pass


def _checked(things: list[T], flaw_of: Callable[[T], str | None], most: int) -> list[T]:
    if len(things) > most:
        raise _FlawError(f"{len(things)} entries, of at most {most}")
    for number, thing in enumerate(things):
        flaw = flaw_of(thing)
        if flaw is not None:
            raise _FlawError(f"entry {number}: {flaw}")
    return things


def _read_cells(raw: msgspec.Raw) -> list[LengthCell]:
    rows = _cells.decode(raw)
    cells = [LengthCell(tuple(key), *figures) for key, *figures in rows]
    return _checked(cells, _cell_flaw, MOST_CELLS)


def _read_speeds(raw: msgspec.Raw) -> list[Speed]:
    return _checked(_speeds.decode(raw), _speed_flaw, MOST_SPEEDS)


def _read_prompts(raw: msgspec.Raw) -> PromptSums:
    sums = _prompts.decode(raw)
    _checked(list(sums.items()), lambda item: _sums_flaw(*item), MOST_MODELS)
    return sums


def _read_policies(raw: msgspec.Raw) -> Known:
    policies = _policies.decode(raw)
    if max(len(policies), *map(len, policies.values()), 0) > MOST_KNOWN:
        raise _FlawError(f"more than {MOST_KNOWN} values")
    return policies


def _cell_flaw(cell: LengthCell) -> str | None:
    kinds = (str, str, int, int)[: len(cell.key)]
    if not 1 <= len(cell.key) <= LEAF_DEPTH or tuple(map(type, cell.key)) != kinds:
        return "a key that is none"
    if any(len(part) > MOST_NAME for part in cell.key if isinstance(part, str)):
        return f"a name of more than {MOST_NAME} characters"
    if any(not -1 <= part <= MOST_BUCKET for part in cell.key if isinstance(part, int)):
        return "a bucket that is none"
    if not 0.0 < cell.weight < math.inf:
        return "a weight that is none"
    lengths = (cell.mean_tokens, cell.p90_tokens, math.sqrt(max(cell.square_tokens, 0.0)))
    if not all(0.0 < tokens < MOST_TOKENS for tokens in lengths):
        return "a length that is none"
    return None


def _speed_flaw(speed: Speed) -> str | None:
    if max(len(speed.name), len(speed.card)) > MOST_NAME or len(speed.group) > 4 * MOST_NAME:
        return f"a name of more than {MOST_NAME} characters"
    return speed.flaw()


def _sums_flaw(model: str, sums: tuple[float, float]) -> str | None:
    size, tokens = sums
    if len(model) > MOST_NAME:
        return f"a name of more than {MOST_NAME} characters"
    if not (0.0 < tokens < 1e12 and 0.1 <= size / tokens <= 100.0):
        return "bytes a token that are none"
    return None


def described(learned: Learned) -> Mapping[str, int]:
    """How much of what."""
    return {
        "lengths": len(learned.lengths),
        "speeds": len(learned.speeds),
        "prompts": len(learned.prompts),
        "policies": len(learned.policies),
    }
