"""Log records as text, one line each, whatever clients and engines put into them."""

from __future__ import annotations

import logging


class PlainFormatter(logging.Formatter):
    """Like its parent, but nobody's words can begin a line of their own or move the cursor."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - its parent's name
        """One line; a traceback follows it on lines of its own."""
        line = super().formatMessage(record)
        if line.isprintable():
            return line
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
