"""PyYAML's errors in one line: they draw the place over four and more."""

from __future__ import annotations

import yaml


def in_a_line(error: yaml.YAMLError) -> str:
    """What is wrong and where, as in ``line 3: expected ... that begins in line 2``."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    said = f"line {error.problem_mark.line + 1}: {error.problem}"
    if error.context:
        said += f" {error.context}"
        begun = error.context_mark
        if begun is not None and begun.line != error.problem_mark.line:
            said += f" that begins in line {begun.line + 1}"
    return said
