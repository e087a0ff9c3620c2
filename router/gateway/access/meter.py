"""The limits of one holder: may this request come in, and if not, when.

Per-minute limits slide: the minute before counts with the share of it that lies less than 60 s
back, so nobody gets two minutes' worth around the turn of a minute, and two numbers a limit are
all that replicas must share. Daily budgets run by the UTC day.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from router.gateway.access.grant import Grant
from router.gateway.access.ledger import DAY_S, MINUTE_S, Entry, Ledger
from router.gateway.problems import Problem

REQUESTS, TOKENS = "requests", "tokens"
TOKENS_DAY, USD_DAY = "tokens/day", "usd/day"


@dataclass(frozen=True, slots=True)
class Standing:
    """One per-minute limit as it stands.

    Attributes:
        limit: as granted.
        remaining: what may still be used now.
        reset_s: until all of it may.
    """

    limit: float
    remaining: float
    reset_s: float


class Meter:
    """Counts one holder.

    Args:
        grant: its limits.
        ledger: where the amounts are.
    """

    __slots__ = ("_ledger", "active", "elsewhere", "grant")

    def __init__(self, grant: Grant, ledger: Ledger) -> None:
        self.grant = grant
        self._ledger = ledger
        self.active = 0
        self.elsewhere = 0
        """Requests under way at other replicas."""

    def enter(self, tokens: float, unix_s: float) -> Problem | None:
        """Let a request in and charge it, or say why not.

        Args:
            tokens: what it will probably use.
            unix_s: wall-clock time.
        """
        refusal = self._refusal(tokens, unix_s)
        if refusal is None:
            self.active += 1
            self._add(REQUESTS, unix_s, 1.0)
            self._add(TOKENS, unix_s, tokens)
        return refusal

    def leave(self, entered_unix_s: float, expected: float, used: float, usd: float) -> None:
        """The request is over: charge what it used instead of what was expected.

        Args:
            entered_unix_s: when it came in; its minute is charged, its day pays.
            expected: the tokens charged then.
            used: prompt and output tokens.
            usd: their price.
        """
        self.active -= 1
        self._add(TOKENS, entered_unix_s, used - expected)
        day = int(entered_unix_s // DAY_S)
        if self.grant.tokens_per_day is not None:
            self._ledger.add((self.grant.holder, TOKENS_DAY, day), used)
        if self.grant.usd_per_day is not None and usd:
            self._ledger.add((self.grant.holder, USD_DAY, day), usd)

    def standings(self, unix_s: float) -> dict[str, Standing]:
        """The per-minute limits that the holder has."""
        limits = {REQUESTS: self.grant.requests_per_minute, TOKENS: self.grant.tokens_per_minute}
        return {
            what: Standing(
                limit,
                max(0.0, limit - self._used(what, unix_s)),
                self._reset_s(what, unix_s),
            )
            for what, limit in limits.items()
            if limit is not None
        }

    def entries(self, minute: int, day: int) -> list[Entry]:
        """The ledger entries that decide now."""
        grant = self.grant
        periods = {
            REQUESTS: (grant.requests_per_minute, (minute - 1, minute)),
            TOKENS: (grant.tokens_per_minute, (minute - 1, minute)),
            TOKENS_DAY: (grant.tokens_per_day, (day,)),
            USD_DAY: (grant.usd_per_day, (day,)),
        }
        return [
            (grant.holder, what, period)
            for what, (limit, looked_at) in periods.items()
            if limit is not None
            for period in looked_at
        ]

    # -- inside ------------------------------------------------------------------------------

    def _refusal(self, tokens: float, unix_s: float) -> Problem | None:
        grant = self.grant
        running = self.active + self.elsewhere
        if grant.max_concurrent is not None and running >= grant.max_concurrent:
            return _limited(
                f"{running} requests of {grant.holder!r} are under way and "
                f"{grant.max_concurrent} are allowed. Wait for one to end.",
                "concurrency_limit_exceeded",
                1.0,
            )
        return (
            self._over_rate(REQUESTS, grant.requests_per_minute, 1.0, unix_s)
            or self._over_rate(TOKENS, grant.tokens_per_minute, tokens, unix_s)
            or self._over_budget(TOKENS_DAY, grant.tokens_per_day, tokens, unix_s)
            or self._over_budget(USD_DAY, grant.usd_per_day, 0.0, unix_s)
        )

    def _over_rate(
        self, what: str, limit: float | None, cost: float, unix_s: float
    ) -> Problem | None:
        if limit is None:
            return None
        # One request above the whole limit would never get in; an empty minute lets it pass.
        cost = min(cost, limit)
        used = self._used(what, unix_s)
        if used + cost <= limit:
            return None
        wait_s = self._wait_s(what, limit - cost, unix_s)
        return _limited(
            f"Rate limit of {self.grant.holder!r}: {limit:g} {what} a minute, {used:.0f} used, "
            f"{cost:.0f} asked for. Try again in {wait_s:.1f} s.",
            "rate_limit_exceeded",
            wait_s,
        )

    def _over_budget(
        self, what: str, limit: float | None, cost: float, unix_s: float
    ) -> Problem | None:
        if limit is None:
            return None
        day = int(unix_s // DAY_S)
        used = self._ledger.total((self.grant.holder, what, day))
        if used < limit and used + min(cost, limit) <= limit:
            return None
        unit = what.removesuffix("/day")
        return _limited(
            f"The budget of {self.grant.holder!r} for today is {limit:g} {unit} and {used:g} are "
            "spent. It begins anew at midnight UTC.",
            "insufficient_quota",
            (day + 1) * DAY_S - unix_s,
        )

    def _used(self, what: str, unix_s: float) -> float:
        minute, into_s = divmod(unix_s, MINUTE_S)
        before, now = self._amounts(what, int(minute))
        return before * (1 - into_s / MINUTE_S) + now

    def _amounts(self, what: str, minute: int) -> tuple[float, float]:
        holder, total = self.grant.holder, self._ledger.total
        return total((holder, what, minute - 1)), total((holder, what, minute))

    def _wait_s(self, what: str, room: float, unix_s: float) -> float:
        """Until no more than ``room`` counts, if nothing is added."""
        minute, into_s = divmod(unix_s, MINUTE_S)
        before, now = self._amounts(what, int(minute))
        if now <= room and before > 0:
            return max(0.0, MINUTE_S * (1 - (room - now) / before) - into_s)
        share = 1 - room / now if now > 0 else 0.0
        return MINUTE_S - into_s + MINUTE_S * max(0.0, share)

    def _reset_s(self, what: str, unix_s: float) -> float:
        minute, into_s = divmod(unix_s, MINUTE_S)
        before, now = self._amounts(what, int(minute))
        if now > 0:
            return 2 * MINUTE_S - into_s
        return MINUTE_S - into_s if before > 0 else 0.0

    def _add(self, what: str, unix_s: float, amount: float) -> None:
        limit = self.grant.requests_per_minute if what == REQUESTS else self.grant.tokens_per_minute
        if limit is not None and amount:
            self._ledger.add((self.grant.holder, what, int(unix_s // MINUTE_S)), amount)


def _limited(message: str, code: str, retry_after_s: float) -> Problem:
    kind = "insufficient_quota" if code == "insufficient_quota" else "rate_limit_error"
    return Problem(
        429, message, code=code, type=kind, retry_after_s=max(1.0, math.ceil(retry_after_s))
    )
