"""What the gateway shows the engines: API keys and certificates. Neither is ever logged or told."""

from __future__ import annotations

import os
import ssl
from fnmatch import fnmatchcase
from pathlib import Path

from router.config.upstream import UpstreamEntry, UpstreamSection, UpstreamTls
from router.domain.errors import ConfigError

DEFAULT_KEY_VARIABLE = "VLLM_API_KEY"
"""As vLLM and production-stack read it."""


class Identity:
    """Keys and TLS by backend.

    Args:
        section: of the configuration.

    Raises:
        ConfigError: a variable or file that is named and not there, or a certificate that cannot
            be used.
    """

    def __init__(self, section: UpstreamSection) -> None:
        self._rules = [
            (pattern, self._key(entry), _context(entry.tls))
            for pattern, entry in section.backends.items()
        ]
        default = self._key(section) or os.environ.get(DEFAULT_KEY_VARIABLE, "")
        self._rules.append(("*", default, _context(section.tls)))
        self._known: dict[str, tuple[str, ssl.SSLContext | None]] = {}

    def __bool__(self) -> bool:
        """Whether there is anything to show or to trust."""
        return any(key or context is not None for _, key, context in self._rules)

    def authorization(self, backend: str) -> bytes:
        """The whole ``authorization`` header line for a backend; empty for none."""
        key = self._of(backend)[0]
        return b"authorization: Bearer " + key.encode("ascii") if key else b""

    def tls(self, backend: str) -> ssl.SSLContext | None:
        """For https; ``None`` for the system's own trust."""
        return self._of(backend)[1]

    def _of(self, backend: str) -> tuple[str, ssl.SSLContext | None]:
        known = self._known.get(backend)
        if known is None:
            known = next((k, c) for pattern, k, c in self._rules if fnmatchcase(backend, pattern))
            self._known[backend] = known
        return known

    def _key(self, entry: UpstreamEntry) -> str:
        if entry.api_key_env:
            key = os.environ.get(entry.api_key_env, "")
            if not key:
                raise ConfigError(
                    f"upstream: the environment variable {entry.api_key_env} is not set; export it "
                    "with the engines' API key"
                )
            return _checked(key, entry.api_key_env)
        if entry.api_key_file:
            try:
                key = Path(entry.api_key_file).read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"upstream: cannot read {entry.api_key_file}: {error}") from error
            return _checked(key, entry.api_key_file)
        return ""


def _checked(key: str, source: str) -> str:
    if not key.isprintable() or not key.isascii() or " " in key:
        raise ConfigError(f"upstream: the key in {source} has characters that no header may have")
    return key


def _context(tls: UpstreamTls | None) -> ssl.SSLContext | None:
    if tls is None:
        return None
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
        if tls.cert_file:
            context.load_cert_chain(tls.cert_file, tls.key_file)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(f for f in (tls.ca_file, tls.cert_file, tls.key_file) if f)
        raise ConfigError(f"upstream.tls: cannot use {files}: {error}") from error
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
