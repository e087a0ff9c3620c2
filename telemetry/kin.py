"""Identical backends stand in for each other until each has traffic of its own to go by.

A backend that is believed to be slow gets no traffic, and could never show that it is not. Its
equals can: what they have learned of their common cost is one more witness on it, as good as
cards of one kind are alike. The median of the others speaks, so that a sick one among them
does not.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Container, Iterable
from dataclasses import dataclass, field

ALIKE = 0.15
"""How much identical backends differ, as a standard deviation in log units."""

STRANGE = 2.5
"""A backend this many standard deviations from its equals is not their equal: throttled, shared
or wrongly set up, it speaks for itself."""

LEAST_PRECISION = 10.0
"""Who knows its own multiplier worse than to 30% is no witness."""


@dataclass(frozen=True, slots=True)
class Member:
    """One backend and one phase, in logs.

    Attributes:
        name, group: whose; an empty group has no other members.
        multiplier: what its own traffic taught of the multiplier on its prior.
        precision: one over the variance of that; 0 if nothing was taught.
        prior_cost: the prior that the multiplier is on.
    """

    name: str
    group: str
    multiplier: float
    precision: float
    prior_cost: float


def blend(
    members: Iterable[Member], spread: float, asked: Container[str] | None = None
) -> dict[str, float]:
    """Log multiplier of each: prior, own traffic and equals, weighted by their precision.

    Args:
        members: all backends, one phase.
        spread: prior standard deviation of a log multiplier; the prior is 0.
        asked: names of those to answer for; ``None`` means all.
    """
    everybody = list(members)
    groups = _groups(everybody)
    return {
        member.name: _one(member, groups.get(member.group), spread)
        for member in everybody
        if asked is None or member.name in asked
    }


@dataclass(slots=True)
class _Group:
    """What is known of one group: learned log costs, ascending, and how well altogether."""

    costs: list[float] = field(default_factory=list)
    precision: float = 0.0


def _one(member: Member, group: _Group | None, spread: float) -> float:
    weight = 1.0 / spread**2 + member.precision
    total = member.precision * member.multiplier
    said = None if group is None else _witness(member, group)
    if said is not None:
        cost, precision = said
        weight += precision
        total += precision * (cost - member.prior_cost)
    return total / weight


def _witness(member: Member, group: _Group) -> tuple[float, float] | None:
    """(log cost, precision) that the others stand for; ``None`` if they have nothing to say."""
    if not _knows(member):
        return _median_of_others(group.costs, None), 1.0 / (ALIKE**2 + 1.0 / group.precision)
    if len(group.costs) < 2:
        return None
    own = member.prior_cost + member.multiplier
    usual = _median_of_others(group.costs, own)
    apart = ALIKE**2 + 1.0 / (group.precision - member.precision)
    if abs(own - usual) > STRANGE * math.sqrt(apart + 1.0 / member.precision):
        return None
    return usual, 1.0 / apart


def _knows(member: Member) -> bool:
    return bool(member.group) and member.precision >= LEAST_PRECISION


def _groups(members: Iterable[Member]) -> dict[str, _Group]:
    """What the members that know themselves have learned, by group."""
    groups: dict[str, _Group] = {}
    for member in members:
        if _knows(member):
            group = groups.setdefault(member.group, _Group())
            group.costs.append(member.prior_cost + member.multiplier)
            group.precision += member.precision
    for group in groups.values():
        group.costs.sort()
    return groups


def _median_of_others(costs: list[float], own: float | None) -> float:
    """Median of an ascending list without one of its values."""
    skipped = len(costs) if own is None else bisect_left(costs, own)
    count = len(costs) - (own is not None)

    def at(k: int) -> float:
        return costs[k if k < skipped else k + 1]

    return (at((count - 1) // 2) + at(count // 2)) / 2.0
