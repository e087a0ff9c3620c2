"""One id for a request, the client's own if it is fit to be seen in headers and logs."""

from __future__ import annotations

import re
from random import getrandbits

_SANE_ID = re.compile(rb"[A-Za-z0-9._:\-]{1,128}")


def request_id_of(offered: bytes | None) -> str:
    """The client's ``x-request-id`` if it is sane, else a new UUID (llama.cpp takes no other)."""
    if offered and _SANE_ID.fullmatch(offered):
        return offered.decode("ascii")
    digits = f"{getrandbits(128):032x}"
    # A UUID of version 4 by hand: the library's takes 6 us, this one less than 1.
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
