"""Latency targets that no engine meets, in words: one sentence for many classes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unmet:
    """A class whose target nobody meets even at the lowest utilization.

    Attributes:
        work: name of the class.
        target: ``ttft``, ``tpot`` or ``e2e``.
        nearest: the group that misses it least.
        factor: by which it does, above 1.
    """

    work: str
    target: str
    nearest: str
    factor: float

    def __str__(self) -> str:
        return (
            f"no engine meets the {self.target} target of class {self.work}; the nearest, "
            f"{self.nearest}, misses it by a factor of {self.factor:.2f} even lightly loaded"
        )


def in_words(unmet: Iterable[Unmet]) -> list[str]:
    """A sentence for each target and nearest group, which names the class that is worst off."""
    alike: dict[tuple[str, str], list[Unmet]] = {}
    for one in unmet:
        alike.setdefault((one.target, one.nearest), []).append(one)
    return [_together(group) for group in alike.values()]


def _together(group: list[Unmet]) -> str:
    worst = max(group, key=lambda one: one.factor)
    if len(group) == 1:
        return str(worst)
    return (
        f"no engine meets the {worst.target} target of {len(group)} classes; the nearest, "
        f"{worst.nearest}, misses it by a factor of {min(one.factor for one in group):.2f} to "
        f"{worst.factor:.2f} even lightly loaded (most of all {worst.work})"
    )
