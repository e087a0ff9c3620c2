"""How deep a body is nested, without reading it as JSON.

Python's own limit on recursion (about 1000) keeps the gateway safe; a lower one of the user's
keeps engines safe that are less careful with what they are sent.
"""

from __future__ import annotations

import re

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_OPENING = frozenset(b"[{")


def deeper_than(body: bytes, limit: int) -> bool:
    """Whether objects and lists are nested more than ``limit`` deep.

    Nearly every body has fewer brackets than that, and then two searches tell; only the others
    are looked through. Where there are few, ``replace`` is 15 times as fast as ``count``.
    """
    if 2 * len(body) - len(body.replace(b"{", b"")) - len(body.replace(b"[", b"")) <= limit:
        return False
    depth = 0
    for bracket in _STRING.sub(b"", body).translate(None, _NO_BRACKETS):
        if bracket in _OPENING:
            depth += 1
            if depth > limit:
                return True
        else:
            depth -= 1
    return False
