"""Figures for people."""

from __future__ import annotations


def seconds(value: float | None) -> str:
    """A duration for people: three significant digits."""
    if value is None:
        return "-"
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"
