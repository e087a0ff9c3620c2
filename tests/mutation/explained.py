"""Mutants that survive because they change nothing that anybody promises."""

from __future__ import annotations

EXPLAINED: dict[tuple[str, str, str], str] = {}
"""By file, line and change: why no test can or should notice."""
