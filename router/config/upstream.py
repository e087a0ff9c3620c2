"""How the gateway shows itself to the engines, and whom it trusts: the ``upstream`` section."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from router.config.section import Section


class UpstreamTls(Section):
    """TLS towards engines; with ``cert_file`` the gateway shows a certificate too (mTLS)."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify: bool = True

    @model_validator(mode="after")
    def _key_has_a_certificate(self) -> Self:
        if self.key_file and not self.cert_file:
            raise ValueError("key_file needs cert_file")
        return self


class UpstreamEntry(Section):
    """For one kind of backend: its API key, by environment variable or file, and TLS."""

    api_key_env: str | None = None
    api_key_file: str | None = None
    tls: UpstreamTls | None = None

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.api_key_env and self.api_key_file:
            raise ValueError("give api_key_env or api_key_file, not both")
        return self


class UpstreamSection(UpstreamEntry):
    """For all backends; ``backends`` makes exceptions by name or pattern (``t4-*``)."""

    backends: dict[str, UpstreamEntry] = Field(default_factory=dict)


class ServerTls(Section):
    """TLS at the gateway's own door; with ``client_ca_file`` clients must show a certificate."""

    cert_file: str
    key_file: str | None = None
    client_ca_file: str | None = None
