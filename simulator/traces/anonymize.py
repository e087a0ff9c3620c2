"""A trace fit to be given away: who asked and what they shared can no longer be told.

Tenants and sessions become keyed hashes, and prefix hashes are keyed anew, so that what requests
share stays and what they share cannot be guessed from the text. Lengths, times, models and classes
stay: they are what a trace is for. Times count from the first request, as in every trace.
"""

from __future__ import annotations

import hashlib
from array import array
from copy import copy
from functools import cache

from simulator.traces.columns import Labels, Trace

_MASK = (1 << 63) - 1


def anonymized(trace: Trace, salt: bytes) -> Trace:
    """Return the same requests without their identities.

    Args:
        trace: not changed.
        salt: the same salt gives the same hashes; who has it can test a guess.
    """
    fresh = copy(trace)
    fresh.tenant = _hidden(trace.tenant, salt, b"tenant")
    fresh.session = _hidden(trace.session, salt, b"session")

    @cache
    def block(value: int) -> int:
        plain = value.to_bytes(8, "little", signed=True)
        return int.from_bytes(_hash(plain, salt, b"prefix", 8), "little") & _MASK

    return fresh.with_prefixes(array("q", map(block, trace.all_prefixes)))


def _hidden(labels: Labels, salt: bytes, what: bytes) -> Labels:
    hidden = Labels()
    for i in range(len(labels)):
        plain = labels[i].encode("utf-8", "surrogatepass")
        hidden.append(_hash(plain, salt, what, 8).hex() if plain else "")
    return hidden


def _hash(plain: bytes, salt: bytes, what: bytes, size: int) -> bytes:
    return hashlib.blake2b(plain, digest_size=size, key=salt[:64], person=what).digest()
