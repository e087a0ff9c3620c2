"""The commented fleet file."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

import yaml

from router.cli.importers.assemble import Draft
from router.cli.importers.found import Found

WIDTH = 98
_ABOUT = {
    "discovery": "Backends that come and go; see deploy/fleets/discovery.yaml.",
    "aliases": "Names that clients go on using.",
    "fallbacks": "Who may answer instead, for requests that say 'x-motley-fallback: allow'.",
    "models": "Models that the catalogue does not hold under these names.",
    "policy": "`motley simulate` compares policies on your traffic.",
}


def document(found: Found, draft: Draft) -> str:
    """The whole file, as text."""
    lines = [
        *_comment(f"From {found.origin}. `motley check` explains it, `motley serve --config` "),
        *_comment("runs it. Every other setting is in deploy/fleets/example.yaml."),
    ]
    lines += ["", *_backends(draft)]
    for name, section in draft.content.items():
        if name == "backends":
            continue
        lines.append("")
        if name in _ABOUT:
            lines += _comment(_ABOUT[name])
        lines += _dump({name: section})
    if found.notes:
        lines += ["", "# To look at:"]
        lines += _items(found.notes)
    if found.lost:
        lines += ["", "# What has no equivalent here, and why:"]
        lines += _items(f"{item.what}: {item.why}" for item in found.lost)
    return "\n".join([*lines, ""])


def _backends(draft: Draft) -> list[str]:
    rows = draft.content["backends"]
    if not rows:
        return ["backends: []"]
    lines = ["backends:"]
    for row, comments in zip(rows, draft.comments, strict=True):
        for comment in comments:
            lines += [f"  {line}" for line in _comment(comment)]
        lines += [f"  {line}" for line in _dump([row])]
    return lines


def _dump(value: Any) -> list[str]:
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=WIDTH)
    return text.rstrip().splitlines()


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, WIDTH, break_long_words=False)]


def _items(texts: Iterable[str]) -> list[str]:
    lines = []
    for text in texts:
        # A line of the source may hold anything; a comment ends where its line does.
        flat = " ".join(text.split())
        first, *rest = textwrap.wrap(flat, WIDTH - 2, break_long_words=False) or [""]
        lines += [f"# - {first}", *(f"#   {line}" for line in rest)]
    return lines
