"""Sums of each class while demand is counted, and the merging of rare classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(slots=True)
class Tally:
    """Sums of one class while it is counted."""

    count: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    longest_tokens: int = 0

    def add(self, prompt: int, output: int, cached: int) -> None:
        """Count one request."""
        self.count += 1
        self.prompt_tokens += prompt
        self.output_tokens += output
        self.cached_tokens += min(cached, prompt)
        self.longest_tokens = max(self.longest_tokens, prompt + output)

    def merge(self, other: Tally) -> None:
        """Count another class's requests as this one's."""
        self.count += other.count
        self.prompt_tokens += other.prompt_tokens
        self.output_tokens += other.output_tokens
        self.cached_tokens += other.cached_tokens
        self.longest_tokens = max(self.longest_tokens, other.longest_tokens)


class Key(NamedTuple):
    """What the requests of a class share."""

    model: str
    slo_class: str
    tenant: str
    prompt_limit: float
    output_limit: float


def merge_rare(tallies: dict[Key, Tally], max_classes: int) -> None:
    """Fold the rarest classes into the nearest of the same model, SLO class and tenant group."""
    lonely: set[Key] = set()
    while len(tallies) > max(1, max_classes) and len(lonely) < len(tallies):
        rarest = min(tallies.keys() - lonely, key=lambda key: (tallies[key].count, key))
        kin = [key for key in tallies if key != rarest and key[:3] == rarest[:3]]
        if not kin:
            lonely.add(rarest)
            continue
        origin = _log_lengths(tallies[rarest])
        nearest = min(kin, key=lambda key: (math.dist(origin, _log_lengths(tallies[key])), key))
        tallies[nearest].merge(tallies.pop(rarest))


def _log_lengths(tally: Tally) -> tuple[float, float]:
    return (
        math.log2(1 + tally.prompt_tokens / tally.count),
        math.log2(1 + tally.output_tokens / tally.count),
    )
