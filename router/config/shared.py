"""What replicas and worker processes share: the ``shared`` section."""

from __future__ import annotations

from pydantic import Field, field_validator

from router.config.section import Seconds, Section


class SharedSection(Section):
    """In-flight counts, limits, prefixes, plan and registered workers, through Redis or Valkey.

    Without ``url`` the processes of one ``motley serve --workers N`` share among themselves and
    one process shares nothing. Everything is exchanged every ``interval_s``, off the request path.
    """

    url: str | None = None
    prefix: str = Field(default="motley", min_length=1, max_length=64)
    replica: str | None = Field(default=None, min_length=1, max_length=128)
    interval_s: Seconds = 0.1
    timeout_s: Seconds = 0.5
    stale_after_s: Seconds = 2.0
    lease_s: Seconds = 5.0
    prefixes: bool = True

    @field_validator("url")
    @classmethod
    def _is_redis(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must be redis://host:port/db, rediss://... or unix:///path/to/socket")
        return value
