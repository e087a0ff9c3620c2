"""API keys of the gateway itself: kept as digests, compared as digests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256


class Keyring:
    """Whom to let in.

    Args:
        keys: the accepted keys; with none, everybody is let in.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = frozenset(sha256(key.encode()).digest() for key in keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def admits(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether the request carries one of the keys (``authorization`` or ``x-api-key``).

        Digests are looked up, not keys, so the time taken tells nothing about a key.
        """
        if not self._digests:
            return True
        offered = headers.get(b"x-api-key", b"")
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer":
            offered = token.strip()
        return sha256(offered).digest() in self._digests
