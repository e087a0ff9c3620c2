"""How deep a body is nested, without reading it as JSON.

Python's own limit on recursion (about 1000) keeps the gateway safe; a lower one of the user's
keeps engines safe that are less careful with what they are sent.
"""

from __future__ import annotations

from array import array
from itertools import accumulate

_NEITHER = bytes(set(range(256)) - set(b'[]{}"'))
_ALIKE = bytes.maketrans(b"[]", b"{}")
_RUN = 8
_UP, _DOWN = b"{" * _RUN, b"}" * _RUN
_STEPS = bytes.maketrans(b"{}+-", bytes((1, 255, _RUN, 256 - _RUN)))
PIECE_BYTES = 262_144
"""A cache holds so much: a long body is looked through four times as fast piece by piece."""


def deeper_than(body: bytes, limit: int) -> bool:
    """Whether objects and lists are nested more than ``limit`` deep.

    Nearly every body has fewer brackets than that, and then two searches tell; only the others
    are looked through. Where there are few, ``replace`` is 15 times as fast as ``count``.
    """
    if 2 * len(body) - len(body.replace(b"{", b"")) - len(body.replace(b"[", b"")) <= limit:
        return False
    nesting = _Nesting(limit)
    for start in range(0, len(body), PIECE_BYTES):
        nesting.feed(body[start : start + PIECE_BYTES])
    return nesting.too_deep


class _Nesting:
    """How deep it is so far, wherever the pieces were cut."""

    __slots__ = ("_depth", "_escape", "_in_text", "_limit", "too_deep")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._depth = 0
        self._in_text = False
        self._escape = b""
        self.too_deep = False

    def feed(self, part: bytes) -> None:
        """The next piece."""
        outside = self._outside_texts(self._escape + part)
        steps = array("b", _shorter(outside).translate(_STEPS))
        self.too_deep |= self._depth + max(accumulate(steps), default=0) > self._limit
        self._depth += outside.count(b"{") - outside.count(b"}")

    def _outside_texts(self, part: bytes) -> bytes:
        """Its brackets, all of one kind, less those inside of texts."""
        self._escape = b""
        if b"\\" in part:
            part = part.replace(b"\\\\", b"").replace(b'\\"', b"")
            if part.endswith(b"\\"):
                self._escape = b"\\"
        between = part.translate(_ALIKE, _NEITHER).split(b'"')
        outside = b"".join(between[self._in_text :: 2])
        self._in_text ^= len(between) % 2 == 0
        return outside


def _shorter(brackets: bytes) -> bytes:
    """Brackets that reach just as high, in fewer steps: a way down and up again is left out (a
    row of small objects becomes one), and a run becomes one long step."""
    before = 2 * len(brackets)
    while 10 * len(brackets) < 9 * before:
        before, brackets = len(brackets), brackets.replace(b"}{", b"")
    return brackets.replace(_UP, b"+").replace(_DOWN, b"-")
