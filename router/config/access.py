"""Who may use the gateway and how much: the ``access`` and ``admin`` sections of the file."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from router.config.section import Seconds, Section

Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]
DIGEST_PREFIX = "sha256:"
_DIGEST_LENGTH = len(DIGEST_PREFIX) + 64


def _not_blank(key: str) -> str:
    if not key.strip():
        raise ValueError(
            "an empty key would let everybody in; is the variable set that it comes from?"
        )
    return key


ApiKey = Annotated[str, AfterValidator(_not_blank)]


class GrantSection(Section):
    """What the holder of a key, or of a token, may do. Nothing given means no limit.

    ``priority_class`` is not here: a class is asked for with ``x-motley-class``; ``classes`` says
    which may be asked for, ``default_class`` which one counts when none is.
    """

    models: list[str] | None = None
    classes: list[str] | None = None
    default_class: str | None = None
    requests_per_minute: Amount | None = None
    tokens_per_minute: Amount | None = None
    max_concurrent: int | None = Field(default=None, ge=1)
    tokens_per_day: Amount | None = None
    usd_per_day: Amount | None = None
    admin: bool = False

    @model_validator(mode="after")
    def _default_is_allowed(self) -> Self:
        if self.default_class and self.classes and self.default_class not in self.classes:
            raise ValueError(f"default_class {self.default_class!r} is not among classes")
        return self


class KeySection(GrantSection):
    """One API key: who holds it, its digest, its rights. ``motley keys create`` writes these."""

    name: str = Field(min_length=1, max_length=128)
    hash: str
    created_unix_s: int = 0
    expires_unix_s: int | None = None

    @field_validator("name")
    @classmethod
    def _is_one_line(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("must be printable: it stands in logs and in lists")
        return value

    @field_validator("hash")
    @classmethod
    def _is_a_digest(cls, value: str) -> str:
        digits = value.removeprefix(DIGEST_PREFIX)
        if len(value) != _DIGEST_LENGTH or any(d not in "0123456789abcdef" for d in digits):
            raise ValueError(
                f"must be '{DIGEST_PREFIX}' and 64 hexadecimal digits; "
                "'motley keys create' makes one"
            )
        return value


class PriceSection(Section):
    """What a model's tokens cost the holder of a key."""

    input_usd_per_mtok: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    output_usd_per_mtok: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class OidcSection(Section):
    """Tokens of an identity provider, beside API keys (extra ``oidc``).

    ``jwks`` is a file or an https URL (http for loopback). ``tenant_claim`` names the claim that
    becomes the tenant; ``admin_claim``/``admin_value`` who may administer.
    """

    issuer: str
    audience: str
    jwks: str
    algorithms: list[str] = Field(default_factory=lambda: ["RS256", "ES256", "EdDSA"], min_length=1)
    tenant_claim: str = "sub"
    admin_claim: str | None = None
    admin_value: str = "motley-admin"
    refresh_s: Seconds = 300.0
    leeway_s: float = Field(default=30.0, ge=0, le=600)
    grant: GrantSection = GrantSection()

    @field_validator("algorithms")
    @classmethod
    def _are_asymmetric(cls, value: list[str]) -> list[str]:
        weak = [name for name in value if name.lower() == "none" or name.startswith("HS")]
        if weak:
            raise ValueError(
                f"{weak[0]} cannot be verified with public keys; use RS256, ES256, EdDSA"
            )
        return value


class AccessSection(Section):
    """API keys and tokens; with none of them the gateway lets everybody in."""

    keys_file: str | None = None
    keys: list[KeySection] = Field(default_factory=list)
    prices: dict[str, PriceSection] = Field(default_factory=dict)
    oidc: OidcSection | None = None

    @property
    def required(self) -> bool:
        """Whether a caller must show something."""
        return bool(self.keys or self.keys_file or self.oidc)


class AdminSection(Section):
    """Workers, reload and debugging: beside the API, or on a port of their own.

    With ``port`` the admin paths are there only, and the API's port knows nothing of them.
    """

    host: str = "127.0.0.1"
    port: int | None = Field(default=None, ge=0, le=65535)
    api_keys: list[ApiKey] = Field(default_factory=list)
    worker_networks: list[str] = Field(default_factory=list)
    worker_schemes: list[str] = Field(default_factory=lambda: ["http", "https"])
