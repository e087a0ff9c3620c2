"""The loop every line format shares: parse, count what fails, go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from router.domain.errors import TraceError
from simulator.traces.record import ReadReport, TraceRecord
from simulator.traces.source import Line

Numbered = tuple[int, TraceRecord]
"""Line number and the request on it."""

_MASK = (1 << 63) - 1
_QUOTED = 80


def parse_each(
    lines: Iterable[Line], parse: Callable[[str], TraceRecord], report: ReadReport
) -> Iterator[Numbered]:
    """Apply ``parse`` to every line; a line it cannot read is reported with its number."""
    for number, text in lines:
        try:
            record = parse(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            report.bad(number, f"{error} in {shorten(text)}")
        except (ValueError, IndexError) as error:
            report.bad(number, f"{error} in {shorten(text)}")
        else:
            yield number, record


def shorten(text: str) -> str:
    """Quote a line for a message."""
    return repr(text if len(text) <= _QUOTED else text[: _QUOTED - 1] + "…")


def find_columns(header: Sequence[str], wanted: Sequence[str], path: str) -> list[int]:
    """Return the position of each wanted column.

    Raises:
        TraceError: one is missing.
    """
    names = [name.strip().lower() for name in header]
    missing = [name for name in wanted if name.lower() not in names]
    if missing:
        raise TraceError(
            f"column {', '.join(repr(name) for name in missing)} is missing; "
            f"found: {', '.join(header)}",
            path=path,
            line=1,
        )
    return [names.index(name.lower()) for name in wanted]


def header_of(lines: Iterator[Line], path: str) -> str:
    """Take the first line.

    Raises:
        TraceError: there is none.
    """
    for _, text in lines:
        return text
    raise TraceError("the file is empty", path=path)


def full_blocks(hashes: Sequence[int], input_tokens: int, block_tokens: int) -> tuple[int, ...]:
    """Drop the id of a last, partly filled block: engines cache full blocks only."""
    return tuple(hashes[: input_tokens // block_tokens]) if block_tokens > 0 else ()


def chain(ids: Iterable[int]) -> tuple[int, ...]:
    """Turn per-block ids into prefix hashes: each one stands for all blocks up to it.

    Two sequences share exactly as many leading hashes as they share leading ids (up to
    63-bit collisions).
    """
    chained, state = [], 0x9E3779B97F4A7C15
    for block in ids:
        state = ((state ^ (block + 1)) * 0xBF58476D1CE4E5B9) & _MASK
        state ^= state >> 29
        chained.append(state)
    return tuple(chained)
