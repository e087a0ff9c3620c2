"""Budgeted hedging for TTFT: when a second attempt is worth its price, and who pays.

A request that has waited ``after`` times its predicted TTFT without a first token may be sent to a
second backend; whoever answers first serves it, the other is cancelled. Waiting that long says that
something is wrong with the prediction or with the backend; a waiting time that exceeded its
prediction so far is expected to go on for about as long again (heavy tails), so::

    gain = time since it was sent - predicted TTFT on the other      must exceed ``gain`` * cost
    cost = its prefill on the other, in seconds                      must fit the budget

The budget is a share ``extra`` of all prefill work sent so far, and ``_BURST_S`` to begin with, so
hedging can never add more than that share of load, whatever happens to the fleet (Dean and Barroso,
The Tail at Scale, 2013).
"""

from __future__ import annotations

from dataclasses import dataclass

_BURST_S = 2.0


@dataclass(frozen=True, slots=True)
class HedgeRules:
    """When to hedge.

    Attributes:
        extra: prefill work that hedges may add, as a share of all of it.
        after: multiple of the predicted TTFT to wait first.
        at_least_s: wait at least this long.
        gain: how many times its cost a hedge must be expected to gain.
    """

    extra: float = 0.05
    after: float = 3.0
    at_least_s: float = 0.5
    gain: float = 2.0


class HedgeBudget:
    """Counts the work, and what came of the hedges.

    Args:
        rules: see ``HedgeRules``.

    Attributes:
        sent, won: hedges sent, and those that answered first.
        extra_s, base_s: prefill work of hedges and of everything else, in seconds.
    """

    def __init__(self, rules: HedgeRules) -> None:
        self.rules = rules
        self.sent = self.won = 0
        self.extra_s = self.base_s = 0.0

    def due_s(self, sent_s: float, predicted_ttft_s: float) -> float:
        """When to think about hedging a request."""
        return sent_s + max(self.rules.at_least_s, self.rules.after * predicted_ttft_s)

    def pays(self, waited_s: float, ttft_s: float, cost_s: float) -> bool:
        """Whether a hedge is expected to gain enough, and can be afforded."""
        rules = self.rules
        if waited_s - ttft_s <= rules.gain * cost_s:
            return False
        return self.extra_s + cost_s <= rules.extra * self.base_s + _BURST_S

    def spend(self, cost_s: float) -> None:
        """A hedge was sent."""
        self.sent += 1
        self.extra_s += cost_s
