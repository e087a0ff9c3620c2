"""Tokens of an identity provider (OIDC): signed JWTs, verified here with its public keys.

The keys (JWKS) are read off the request path: at the start, every ``refresh_s``, and soon after a
token names a key that is not known. A verified token is remembered until it expires, so that a
signature is checked once, not with every request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from router.config.access import OidcSection
from router.domain.errors import ConfigError
from router.gateway.access.grant import Grant, grant_of
from telemetry.http_get import FetchError, HttpGetter

log = logging.getLogger("motley.oidc")

MAX_TOKEN_BYTES = 8_192
MAX_KEYS_BYTES = 1 << 20
MOST_REMEMBERED = 10_000
HURRY_S = 5.0
"""A token with an unknown key brings the next reading forward, but not more often than this."""
TIMEOUT_S = 5.0


class OidcReader:
    """Implements ``gate.TokenReader``.

    Args:
        settings: issuer, audience, where the keys are.
        wall: seconds since 1970.

    Raises:
        ConfigError: the extra ``oidc`` is not installed, keys over plain http from elsewhere, or a
            keys file that cannot be read.
    """

    def __init__(self, settings: OidcSection, wall: Callable[[], float]) -> None:
        try:
            import jwt  # noqa: PLC0415 - optional
        except ImportError as error:
            raise ConfigError(
                "access.oidc needs the extra 'oidc': pip install 'motley-router[oidc]'"
            ) from error
        self._jwt: Any = jwt
        self._settings, self._wall = settings, wall
        self._fetcher = HttpGetter()
        self._keys: dict[str | None, Any] = {}
        self._remembered: dict[bytes, tuple[float, Grant]] = {}
        self._hurry = asyncio.Event()
        self._is_url = settings.jwks.startswith(("http://", "https://"))
        if self._is_url:
            check_url(settings.jwks)
        else:
            self._take(_read_file(settings.jwks))

    def grant(self, token: bytes) -> Grant | None:
        """What the token allows; ``None`` if it is no valid one."""
        if len(token) > MAX_TOKEN_BYTES or token.count(b".") != 2:
            return None
        digest = sha256(token).digest()
        known = self._remembered.get(digest)
        if known is not None:
            expires_s, grant = known
            if self._wall() < expires_s:
                return grant
            del self._remembered[digest]
            return None
        return self._verified(token, digest)

    def grant_of(self, holder: str) -> Grant:
        """What every token of this holder allows."""
        return grant_of(holder, self._settings.grant)

    async def keep_fresh(self) -> None:
        """Read the keys again and again."""
        while True:
            await self.refresh()
            await asyncio.sleep(min(HURRY_S, self._settings.refresh_s))
            try:
                async with asyncio.timeout(self._settings.refresh_s):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            self._hurry.clear()

    async def refresh(self) -> bool:
        """Read the keys once; on an error the old ones stay."""
        try:
            if self._is_url:
                raw = await self._fetcher.get(
                    self._settings.jwks, timeout_s=TIMEOUT_S, max_bytes=MAX_KEYS_BYTES
                )
            else:
                raw = _read_file(self._settings.jwks)
            self._take(raw)
        except (FetchError, ConfigError) as error:
            log.warning("the identity provider's keys stay as they were: %s", error)
            return False
        return True

    # -- inside ------------------------------------------------------------------------------

    def _verified(self, token: bytes, digest: bytes) -> Grant | None:
        settings = self._settings
        try:
            kid = self._jwt.get_unverified_header(token).get("kid")
            key = self._keys.get(kid) or (self._only_key() if kid is None else None)
            if key is None:
                self._hurry.set()
                return None
            claims = self._jwt.decode(
                token,
                key.key,
                algorithms=settings.algorithms,
                audience=settings.audience,
                issuer=settings.issuer,
                leeway=settings.leeway_s,
                options={"require": ["exp", "iss", "aud"]},
            )
        except self._jwt.PyJWTError:
            return None
        grant = self._granted(claims)
        if grant is not None:
            if len(self._remembered) >= MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[digest] = (float(claims["exp"]) + settings.leeway_s, grant)
        return grant

    def _granted(self, claims: dict[str, Any]) -> Grant | None:
        settings = self._settings
        holder = claims.get(settings.tenant_claim)
        if not isinstance(holder, str) or not holder:
            return None
        grant = self.grant_of(holder)
        if settings.admin_claim is None:
            return grant
        held = claims.get(settings.admin_claim)
        is_admin = held == settings.admin_value or (
            isinstance(held, list) and settings.admin_value in held
        )
        return replace(grant, admin=grant.admin or is_admin)

    def _only_key(self) -> Any:
        return next(iter(self._keys.values())) if len(self._keys) == 1 else None

    def _take(self, raw: bytes) -> None:
        """Use these keys.

        Raises:
            ConfigError: they are none.
        """
        try:
            keys = self._jwt.PyJWKSet.from_json(raw.decode()).keys
        except (self._jwt.PyJWTError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{self._settings.jwks} is no usable JWKS: {error}") from error
        self._keys = {key.key_id: key for key in keys if key.public_key_use in (None, "sig")}
        # A key that was withdrawn must not live on in tokens that it once signed.
        self._remembered.clear()


def _read_file(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"access.oidc.jwks: cannot read {path}: {error.strerror}") from error


def check_url(url: str) -> None:
    """See whether keys may be read there.

    Raises:
        ConfigError: over plain http, from elsewhere than this machine.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        loopback = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if parts.scheme != "https" and not loopback:
        raise ConfigError(
            f"access.oidc.jwks: {url} must be https: whoever changes the keys is let in"
        )
