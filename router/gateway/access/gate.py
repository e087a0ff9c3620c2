"""The one seam between every front end and whoever may use the gateway.

A request passes it three times: ``admit`` before its body is read (is there a key?), ``enter``
once it is understood (this model, this class, so much?), ``left`` when it is over (what did it
use?). Without keys ``admit`` gives ``None`` and the other two are never called.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from router.config.access import PriceSection
from router.domain.outcome import Outcome
from router.domain.request import Request
from router.gateway.access.grant import Grant
from router.gateway.access.ledger import DAY_S, MINUTE_S, Entry, Ledger
from router.gateway.access.meter import Meter, Standing
from router.gateway.access.ring import Ring, offered_key
from router.gateway.problems import UNAUTHORIZED, Problem
from router.gateway.wire import Headers

DEFAULT_OUTPUT_TOKENS = 256
"""Charged in advance to a request that sets no limit of its own; corrected when it is over."""


class TokenReader(Protocol):
    """Reads tokens of an identity provider; implemented by ``oidc.OidcReader``."""

    def grant(self, token: bytes) -> Grant | None:
        """What the token allows; ``None`` if it is no valid one."""

    def grant_of(self, holder: str) -> Grant:
        """What every token of this holder allows."""

    async def keep_fresh(self) -> None:
        """Keep the provider's keys current, for ever."""


class Caller:
    """Somebody whom the gate has let in."""

    __slots__ = ("grant", "meter")

    def __init__(self, grant: Grant, meter: Meter | None) -> None:
        self.grant = grant
        self.meter = meter
        """``None`` where nothing needs to be counted."""


@dataclass(slots=True)
class _Visit:
    meter: Meter
    entered_unix_s: float
    expected: float
    model: str
    prompt: int = 0
    output: int = 0


class Gate:
    """Lets callers in, and counts what they use; an ``Observer``.

    Args:
        ring: the keys.
        prices: of each model's tokens, for budgets in USD.
        wall: seconds since 1970; budgets and minutes are the same for all replicas.
        tokens: reads an identity provider's tokens, if there is one.
    """

    def __init__(
        self,
        ring: Ring,
        prices: Mapping[str, PriceSection],
        wall: Callable[[], float],
        tokens: TokenReader | None = None,
    ) -> None:
        self.ledger = Ledger()
        self._ring = ring
        self._prices = prices
        self._wall = wall
        self.tokens = tokens
        self._callers: dict[Grant, Caller] = {}
        self._meters: dict[str, Meter] = {}
        self._visits: dict[str, _Visit] = {}

    def __bool__(self) -> bool:
        """Whether callers must show something."""
        return bool(self._ring) or self.tokens is not None

    def replace(self, ring: Ring, prices: Mapping[str, PriceSection]) -> None:
        """New keys; what is under way and what has been used stays."""
        self._ring, self._prices = ring, prices
        self._callers = {}

    # -- the three steps ---------------------------------------------------------------------

    def admit(self, headers: Mapping[bytes, bytes]) -> Caller | Problem | None:
        """Who asks; the refusal if nobody we know; ``None`` where everybody may."""
        if not self:
            return None
        offered = offered_key(headers)
        grant = self._ring.find(offered, self._wall())
        if grant is None and self.tokens is not None and offered:
            grant = self.tokens.grant(offered)
        return UNAUTHORIZED if grant is None else self._caller(grant)

    def by_token(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether somebody was let in for a token: a key of that name may grant something else."""
        return bool(self) and self._ring.find(offered_key(headers), self._wall()) is None

    def caller_of(self, holder: str, *, by_token: bool = False) -> Caller | None:
        """Somebody who has been let in before, for what is done later in their name; ``None``
        once all their keys were taken away or are over.

        Args:
            holder: of the key or the token.
            by_token: whether it was a token: nobody has to show it again, it may be over by now.
        """
        if by_token:
            return self._caller(self.tokens.grant_of(holder)) if self.tokens is not None else None
        for grant in self._ring.grants(self._wall()):
            if grant.holder == holder:
                return self._caller(grant)
        return None

    def enter(self, caller: Caller, asked: str, meant: str, request: Request) -> Problem | None:
        """Let a request in, or say why not.

        Args:
            caller: from ``admit``.
            asked: the model as the client named it.
            meant: what that name stands for, which may be granted as well.
            request: as it will be dispatched.
        """
        refusal = _forbidden(caller.grant, asked, meant, request)
        if refusal is not None or caller.meter is None:
            return refusal
        tokens = request.prompt_tokens + (request.max_tokens or DEFAULT_OUTPUT_TOKENS)
        unix_s = self._wall()
        refusal = caller.meter.enter(tokens, unix_s)
        if refusal is None:
            visit = _Visit(caller.meter, unix_s, tokens, request.model)
            self._visits[request.request_id] = visit
        return refusal

    def observe(self, outcome: Outcome) -> None:
        """An attempt ended: what it used counts, whether or not the client liked it."""
        visit = self._visits.get(outcome.request_id)
        if visit is not None and (outcome.status == "completed" or outcome.output_tokens):
            visit.prompt = outcome.question_tokens
            visit.output += outcome.output_tokens

    def left(self, request_id: str) -> None:
        """A request is over."""
        visit = self._visits.pop(request_id, None)
        if visit is None:
            return
        price = self._prices.get(visit.model)
        usd = 0.0
        if price is not None:
            usd = price.input_usd_per_mtok * visit.prompt + price.output_usd_per_mtok * visit.output
        used = visit.prompt + visit.output
        visit.meter.leave(visit.entered_unix_s, visit.expected, used, usd / 1e6)

    # -- what it tells -----------------------------------------------------------------------

    def headers(self, caller: Caller) -> Headers:
        """``x-ratelimit-*`` as OpenAI's clients read them; none where there is no limit."""
        if caller.meter is None:
            return []
        headers: Headers = []
        for what, standing in caller.meter.standings(self._wall()).items():
            headers += _told(what.encode(), standing)
        return headers

    def active(self) -> dict[str, int]:
        """Requests under way by holder, for other replicas."""
        return {holder: meter.active for holder, meter in self._meters.items() if meter.active}

    def learn_active(self, elsewhere: Mapping[str, int]) -> None:
        """Requests under way at other replicas."""
        for holder, meter in self._meters.items():
            meter.elsewhere = elsewhere.get(holder, 0)

    def entries(self) -> list[Entry]:
        """What limits look at, for everybody's totals."""
        unix_s = self._wall()
        minute, day = int(unix_s // MINUTE_S), int(unix_s // DAY_S)
        wanted: list[Entry] = []
        for meter in self._meters.values():
            wanted += meter.entries(minute, day)
        return wanted

    def tidy(self) -> None:
        """Forget minutes and days that are over."""
        unix_s = self._wall()
        self.ledger.forget_before(int(unix_s // MINUTE_S) - 1, int(unix_s // DAY_S))

    def _caller(self, grant: Grant) -> Caller:
        caller = self._callers.get(grant)
        if caller is None:
            meter = self._meter(grant) if grant.limited else None
            caller = self._callers[grant] = Caller(grant, meter)
        return caller

    def _meter(self, grant: Grant) -> Meter:
        """One a holder, whatever becomes of its keys: two keys of one holder share limits."""
        meter = self._meters.get(grant.holder)
        if meter is None:
            meter = self._meters[grant.holder] = Meter(grant, self.ledger)
        meter.grant = grant
        return meter


def _forbidden(grant: Grant, asked: str, meant: str, request: Request) -> Problem | None:
    if not grant.may_use(asked, meant):
        return Problem(
            403,
            f"This key may not use the model {asked!r}. It may use: "
            f"{', '.join(sorted(grant.models or ())) or 'none'}.",
            code="model_not_allowed",
            param="model",
        )
    if grant.classes is not None and request.slo_class not in grant.classes:
        return Problem(
            403,
            f"This key may not use the service class {request.slo_class!r}. It may use: "
            f"{', '.join(sorted(grant.classes)) or 'none'}. Set x-motley-class.",
            code="class_not_allowed",
        )
    return None


def _told(what: bytes, standing: Standing) -> Headers:
    reset = f"{math.ceil(standing.reset_s * 1000)}ms" if standing.reset_s < 1 else ""
    reset = reset or f"{math.ceil(standing.reset_s)}s"
    return [
        (b"x-ratelimit-limit-" + what, b"%d" % standing.limit),
        (b"x-ratelimit-remaining-" + what, b"%d" % standing.remaining),
        (b"x-ratelimit-reset-" + what, reset.encode()),
    ]
