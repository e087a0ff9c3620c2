"""One log line per request: who was served, by whom, how fast. Never what was said.

Requests are noted as they end and written a few times a second, off their own path.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

from router.gateway.account import Account

log = logging.getLogger("motley.access")

WRITE_S = 0.25
MOST_PENDING = 20_000


class AccessLog:
    """Writes accounts to the logger ``motley.access``.

    Args:
        epoch_s: seconds since the epoch at zero of the gateway's clock.

    Attributes:
        dropped: lines lost because they came faster than they could be written.
    """

    def __init__(self, epoch_s: float) -> None:
        self._epoch_s = epoch_s
        self._pending: deque[Account] = deque()
        self.dropped = 0

    def note(self, account: Account) -> None:
        """Keep one account until the next writing."""
        if len(self._pending) < MOST_PENDING:
            self._pending.append(account)
        else:
            self.dropped += 1

    async def keep_writing(self) -> None:
        """Write until cancelled."""
        while True:
            await asyncio.sleep(WRITE_S)
            self.write()

    def write(self) -> None:
        """Write what is pending."""
        while self._pending:
            account = self._pending.popleft()
            facts = facts_of(account)
            facts["ended_unix_s"] = round(account.ended_s + self._epoch_s, 6)
            log.info(_sentence(facts), extra=facts)
        if self.dropped:
            log.warning("%d access log lines lost: they came too fast", self.dropped)
            self.dropped = 0


def facts_of(account: Account) -> dict[str, Any]:
    """What may be told of a request, without what is unknown."""
    facts: dict[str, Any] = {
        "request_id": account.call.request_id,
        "path": account.call.path.decode("latin-1"),
        "status": account.status,
    }
    request, outcome = account.request, account.outcome
    if request is not None:
        facts |= {"model": request.model, "slo_class": request.slo_class}
        facts["duration_s"] = round(account.ended_s - request.arrival_s, 6)
    if account.reason:
        facts["rejected"] = account.reason
    if account.finish_reason:
        facts["finish_reason"] = account.finish_reason
    if account.tried:
        facts |= {"backend": account.tried[-1], "attempts": len(account.tried)}
    if outcome is not None:
        facts |= {
            "outcome": outcome.status,
            "prompt_tokens": outcome.question_tokens,
            "output_tokens": outcome.answer_tokens,
        }
        if outcome.carried_tokens:
            facts["carried_tokens"] = outcome.carried_tokens
        if outcome.cached_tokens is not None:
            facts["cached_tokens"] = outcome.cached_tokens
        if outcome.ttft_s is not None:
            facts["ttft_s"] = round(outcome.ttft_s, 6)
        if outcome.tpot_s is not None:
            facts["tpot_s"] = round(outcome.tpot_s, 6)
    return facts


def _sentence(facts: dict[str, Any]) -> str:
    who = f" by {facts['backend']}" if "backend" in facts else ""
    took = f" in {facts['duration_s']:.3f} s" if "duration_s" in facts else ""
    return f"{facts['request_id']} {facts['path']} {facts['status']}{who}{took}"
