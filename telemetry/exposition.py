"""Pick a few series out of a Prometheus exposition without parsing the rest.

An engine's ``/metrics`` is 800 lines, of which a router wants ten. ``bytes.find`` jumps from one
wanted family to the next at memory speed, so a scrape costs some 0.2 ms, where a full parse
costs 25 ms (``benchmarks/telemetry/bench_parse.py`` prints the ratio on the machine at hand).

Whatever is wrong with the text is counted in ``Problems`` and left out: a series that cannot be
trusted is unknown, and unknown is never zero.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Problem = Literal[
    "nan",
    "infinite",
    "negative",
    "out_of_range",
    "not_a_number",
    "malformed",
    "duplicate",
    "truncated",
    "too_large",
    "not_json",
    "no_total",
]

MAX_BYTES = 4 * 1024 * 1024
"""Longest exposition looked at; vLLM and SGLang send 65 to 90 kB."""

MAX_SERIES = 4096
"""Most series read of one family: one engine has one per data-parallel rank and label value."""

_AFTER_NAME = (b"{", b" ", b"\t")
# Possessive quantifiers: linear time whatever an engine sends.
_BLOCK = re.compile(rb'\{((?:[^"}]++|"(?:[^"\\]++|\\.)*+")*+)\}')
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*+)="((?:[^"\\]++|\\.)*+)"')
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_UNESCAPED = {"n": "\n", "\\": "\\", '"': '"'}


@dataclass(slots=True)
class Problems:
    """What was wrong with the texts read so far, by kind."""

    counts: Counter[Problem] = field(default_factory=Counter)

    def note(self, problem: Problem) -> None:
        """Count one occurrence."""
        self.counts[problem] += 1


@dataclass(frozen=True, slots=True)
class Series:
    """One line of an exposition."""

    labels: Mapping[str, str]
    value: float


class Exposition:
    """One scraped text, ready to be asked for families by name."""

    def __init__(self, text: str | bytes, problems: Problems) -> None:
        raw = text.encode("utf-8", "replace") if isinstance(text, str) else text
        self.problems = problems
        if len(raw) > MAX_BYTES:
            problems.note("too_large")
            raw = raw[:MAX_BYTES]
        self._raw = b"\n" + raw[: _complete(raw, problems)]
        self._families: dict[str, tuple[Series, ...]] = {}

    def mentions(self, name: str) -> bool:
        """Whether any line starts with ``name``."""
        return self._raw.find(b"\n" + name.encode()) >= 0

    def series(self, name: str) -> Sequence[Series]:
        """Return every readable series of one family, values finite and not negative.

        A series that repeats the labels of an earlier one is counted and left out.
        """
        known = self._families.get(name)
        if known is None:
            known = self._families[name] = self._distinct(name)
        return known

    def _distinct(self, name: str) -> tuple[Series, ...]:
        found: dict[frozenset[tuple[str, str]], Series] = {}
        for line in self._lines(name.encode()):
            parsed = self._read(line)
            if parsed is None:
                continue
            key = frozenset(parsed.labels.items())
            if key in found:
                self.problems.note("duplicate")
            else:
                found[key] = parsed
        return tuple(found.values())

    def _lines(self, name: bytes) -> Iterator[bytes]:
        """Yield what follows the name on each line of the family's group.

        The format keeps the series of a family together, so the first other line ends it.
        """
        raw, needle = self._raw, b"\n" + name
        at = self._first(needle)
        for _ in range(MAX_SERIES):
            if at < 0 or not raw.startswith(needle, at):
                return
            start = at + len(needle)
            at = raw.find(b"\n", start)
            if raw[start : start + 1] in _AFTER_NAME:
                yield raw[start:at]

    def _first(self, needle: bytes) -> int:
        """Where the family starts; a longer name with the same beginning is another family."""
        at = self._raw.find(needle)
        while at >= 0 and self._raw[at + len(needle) : at + len(needle) + 1] not in _AFTER_NAME:
            at = self._raw.find(needle, at + len(needle))
        return at

    def _read(self, line: bytes) -> Series | None:
        labels: dict[str, str] | None = {}
        if line.startswith(b"{"):
            block = _BLOCK.match(line)
            labels = None if block is None else _labels(block.group(1).decode("utf-8", "replace"))
            line = b"" if block is None else line[block.end() :]
        if labels is None:
            self.problems.note("malformed")
            return None
        value = self._number(line)
        return None if value is None else Series(labels, value)

    def _number(self, rest: bytes) -> float | None:
        """Read the value; a timestamp or an exemplar may follow it."""
        words = rest.split(None, 1)
        if not words:
            self.problems.note("malformed")
            return None
        return checked(words[0].decode("ascii", "replace"), self.problems)


def checked(value: object, problems: Problems, most: float = math.inf) -> float | None:
    """Return a finite number from 0 to ``most``, or ``None`` with the problem counted."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        problems.note("not_a_number")
        return None
    if math.isnan(number):
        problems.note("nan")
    elif math.isinf(number):
        problems.note("infinite")
    elif number < 0:
        problems.note("negative")
    elif number > most:
        problems.note("out_of_range")
    else:
        return number
    return None


def _complete(raw: bytes, problems: Problems) -> int:
    """Length up to the last line feed: the format ends every line with one.

    A connection that broke in the middle of ``12.0`` would otherwise read as 1.
    """
    end = raw.rfind(b"\n") + 1
    if end != len(raw):
        problems.note("truncated")
    return end


def _labels(block: str) -> dict[str, str] | None:
    """Read ``a="b",...``; ``None`` if it is malformed."""
    pairs = _LABEL.findall(block)
    if "\\" in block:
        return {name: _ESCAPE.sub(_unescape, value) for name, value in pairs}
    if 2 * len(pairs) != block.count('"'):
        return None
    return dict(pairs)


def _unescape(match: re.Match[str]) -> str:
    return _UNESCAPED.get(match.group(1), match.group(0))
