"""What has been used, by account and period; the part that replicas may share.

An entry is ``(account, measure, period)``: a holder, what is counted, and the number of the minute
or day since 1970. Alone, a gateway counts for itself. Where replicas share, ``drain`` hands over
what this one added since the last exchange and ``learn`` brings everybody's totals, so a total is
wrong by at most what the others added within one exchange.
"""

from __future__ import annotations

from collections.abc import Mapping

Entry = tuple[str, str, int]

MINUTE_S = 60.0
DAY_S = 86_400.0


class Ledger:
    """Amounts by entry."""

    def __init__(self) -> None:
        self._settled: dict[Entry, float] = {}
        self._fresh: dict[Entry, float] = {}
        self._in_exchange: dict[Entry, float] = {}

    def add(self, entry: Entry, amount: float) -> None:
        """Use, or with a negative amount give back."""
        self._fresh[entry] = self._fresh.get(entry, 0.0) + amount

    def total(self, entry: Entry) -> float:
        """Everything used, as far as it is known here."""
        return (
            self._settled.get(entry, 0.0)
            + self._in_exchange.get(entry, 0.0)
            + self._fresh.get(entry, 0.0)
        )

    def drain(self) -> Mapping[Entry, float]:
        """What was added since the last exchange; counts on until ``learn``."""
        for entry, amount in self._fresh.items():
            self._in_exchange[entry] = self._in_exchange.get(entry, 0.0) + amount
        self._fresh = {}
        return dict(self._in_exchange)

    def learn(self, totals: Mapping[Entry, float]) -> None:
        """The exchange took place: these are everybody's totals, what was drained included."""
        self._settled.update(totals)
        self._in_exchange = {}

    def missing(self, totals: Mapping[Entry, float]) -> dict[Entry, float]:
        """What was settled before and is not in everybody's totals any more."""
        found = {
            entry: self._settled.get(entry, 0.0) + self._in_exchange.get(entry, 0.0) - total
            for entry, total in totals.items()
        }
        return {entry: amount for entry, amount in found.items() if amount > 1e-9}

    def forget_before(self, minute: int, day: int) -> None:
        """Drop periods that no limit looks at any more."""
        for amounts in (self._settled, self._in_exchange, self._fresh):
            for entry in [e for e in amounts if e[2] < (day if is_daily(e) else minute)]:
                del amounts[entry]

    def __len__(self) -> int:
        return len(self._settled) + len(self._in_exchange) + len(self._fresh)


def is_daily(entry: Entry) -> bool:
    """Whether the entry's period is a day."""
    return entry[1].endswith("/day")
