"""One id for a request, the client's own if it is fit to be seen in headers and logs."""

from __future__ import annotations

import re
from random import getrandbits

_NOT_VERSION = ~(0xF << 76 | 0x3 << 62)
_VERSION_4 = 0x4 << 76 | 0x2 << 62
"""A random UUID by hand: the library's takes 6 us, this 1."""

_SANE_ID = re.compile(rb"[A-Za-z0-9._:\-]{1,128}")


def request_id_of(offered: bytes | None) -> str:
    """The client's ``x-request-id`` if it is sane, else a new UUID (llama.cpp takes no other)."""
    if offered and _SANE_ID.fullmatch(offered):
        return offered.decode("ascii")
    digits = "%032x" % (getrandbits(128) & _NOT_VERSION | _VERSION_4)
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
