"""What the holder of a key may do; frozen, one a holder."""

from __future__ import annotations

from dataclasses import dataclass

from router.config.access import GrantSection


@dataclass(frozen=True, slots=True)
class Grant:
    """Rights and limits of one holder.

    Attributes:
        holder: who: the tenant of their requests, and the account of what they use.
        models: names they may ask for, those of aliases, of adapters and of what an alias stands
            for; ``None`` for all.
        classes: service classes they may ask for; ``None`` for all.
        default_class: the one that counts when they ask for none; empty for the gateway's own.
        requests_per_minute, tokens_per_minute, max_concurrent, tokens_per_day, usd_per_day:
            ``None`` for no limit.
        admin: whether the admin surface is open to them.
    """

    holder: str = ""
    models: frozenset[str] | None = None
    classes: frozenset[str] | None = None
    default_class: str = ""
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    max_concurrent: int | None = None
    tokens_per_day: float | None = None
    usd_per_day: float | None = None
    admin: bool = False

    def may_use(self, asked: str, meant: str) -> bool:
        """Whether they may have the model or the adapter ``meant``, which they called ``asked``.

        A model brings no adapters with it: those may be somebody's own.
        """
        return self.models is None or asked in self.models or meant in self.models

    @property
    def limited(self) -> bool:
        """Whether anything must be counted."""
        return not (
            self.requests_per_minute is None
            and self.tokens_per_minute is None
            and self.max_concurrent is None
            and self.tokens_per_day is None
            and self.usd_per_day is None
        )


OPERATOR = Grant(admin=True)
"""Holders of ``server.api_keys``: everything, as one nameless tenant."""


def grant_of(holder: str, section: GrantSection) -> Grant:
    """The grant that a section of the file describes."""
    return Grant(
        holder=holder,
        models=None if section.models is None else frozenset(section.models),
        classes=None if section.classes is None else frozenset(section.classes),
        default_class=section.default_class or "",
        requests_per_minute=section.requests_per_minute,
        tokens_per_minute=section.tokens_per_minute,
        max_concurrent=section.max_concurrent,
        tokens_per_day=section.tokens_per_day,
        usd_per_day=section.usd_per_day,
        admin=section.admin,
    )
