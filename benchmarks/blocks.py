"""Measured blocks of a page: from ``<!-- begin:NAME -->`` to ``<!-- end:NAME -->``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path


def placed(text: str, name: str, body: str) -> str | None:
    """The page with a block's body replaced; None where the page has no such block."""
    pattern = re.compile(f"(<!-- begin:{name} -->\n).*?(<!-- end:{name} -->)", re.DOTALL)
    new, found = pattern.subn(lambda at: at[1] + body + "\n" + at[2], text)
    return new if found else None


def write(pages: Iterable[Path], name: str, body: str) -> Path:
    """Put a block's new body where the block stands; returns the page.

    Raises:
        LookupError: no page has the block.
    """
    for page in pages:
        new = placed(page.read_text("utf-8"), name, body)
        if new is not None:
            page.write_text(new, "utf-8")
            return page
    raise LookupError(f"no page has <!-- begin:{name} -->")
