"""One thing that was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Thing = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """A line for the operator.

    Attributes:
        kind: a "problem" keeps something from working; a "note" may be intended, or passes.
        text: what, and what to do.
    """

    kind: Literal["problem", "note"]
    text: str


def problem(text: str) -> Finding:
    """Something that does not work."""
    return Finding("problem", text)


def note(text: str) -> Finding:
    """Something to know."""
    return Finding("note", text)
