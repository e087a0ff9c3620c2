"""Which key is whose: keys are kept, looked up and compared as digests only."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from router.config.access import DIGEST_PREFIX, KeySection
from router.domain.errors import ConfigError
from router.gateway.access.grant import OPERATOR, Grant, grant_of


@dataclass(frozen=True, slots=True)
class Held:
    """One key as it is kept.

    Attributes:
        digest: SHA-256 of the key. Keys are 256 random bits, so a slow hash would add nothing.
        grant: what it allows.
        expires_unix_s: when it ends, if it does.
    """

    digest: bytes
    grant: Grant
    expires_unix_s: int | None = None

    def is_over(self, unix_s: float) -> bool:
        """Whether it has expired."""
        return self.expires_unix_s is not None and unix_s >= self.expires_unix_s


class Ring:
    """All keys, by digest.

    Args:
        held: the keys; the same digest twice is an error.

    Raises:
        ConfigError: one key is given twice.
    """

    def __init__(self, held: Iterable[Held] = ()) -> None:
        self._held: dict[bytes, Held] = {}
        for key in held:
            if key.digest in self._held:
                raise ConfigError(
                    f"the API key of {key.grant.holder or 'the operator'!r} is given twice; "
                    "remove one of the two"
                )
            self._held[key.digest] = key

    def __bool__(self) -> bool:
        return bool(self._held)

    def grants(self, unix_s: float) -> Iterable[Grant]:
        """Of every key that has not expired."""
        return (key.grant for key in self._held.values() if not key.is_over(unix_s))

    def find(self, offered: bytes, unix_s: float) -> Grant | None:
        """The grant of a key; ``None`` if there is none, or it has expired.

        No key is no key, even where the configuration holds an empty one.

        Digests are looked up, not keys, so the time taken tells nothing about a key.
        """
        if not offered:
            return None
        digest = sha256(offered).digest()
        held = self._held.get(digest)
        if held is None or not hmac.compare_digest(held.digest, digest):
            return None
        return None if held.is_over(unix_s) else held.grant


def offered_key(headers: Mapping[bytes, bytes]) -> bytes:
    """The key, or token, that a request shows: ``authorization: Bearer`` or ``x-api-key``."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")


def plain_keys(keys: Iterable[str]) -> list[Held]:
    """Keys from the configuration: in plain text, or as ``sha256:...``."""
    return [Held(_digest(key), OPERATOR) for key in dict.fromkeys(keys)]


def granted_keys(keys: Iterable[KeySection]) -> list[Held]:
    """Keys with their rights."""
    return [Held(_digest(key.hash), grant_of(key.name, key), key.expires_unix_s) for key in keys]


def _digest(key: str) -> bytes:
    if key.startswith(DIGEST_PREFIX) and len(key) == len(DIGEST_PREFIX) + 64:
        return bytes.fromhex(key.removeprefix(DIGEST_PREFIX))
    return sha256(key.encode()).digest()
