"""How the gateway logs: one line an event on standard error, as text or as JSON."""

from __future__ import annotations

import logging

from router.domain.errors import ConfigError
from telemetry.json_log import JsonFormatter
from telemetry.plain_log import PlainFormatter

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
FORMATS = ("text", "json")
LEVELS = ("critical", "error", "warning", "info", "debug")


def log_formatter(form: str) -> logging.Formatter:
    """How log records are written: "text" or "json"."""
    return JsonFormatter() if form == "json" else PlainFormatter(LOG_FORMAT)


def start_logging(level: str, form: str = "text") -> None:
    """One line an event, on standard error.

    Raises:
        ConfigError: there is no such level or format.
    """
    if form not in FORMATS:
        raise ConfigError(f"unknown log format {form!r}; one of: {', '.join(FORMATS)}")
    if level.lower() not in LEVELS:
        raise ConfigError(f"unknown log level {level!r}; one of: {', '.join(LEVELS)}")
    handler = logging.StreamHandler()
    handler.setFormatter(log_formatter(form))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # Its start and stop messages say nothing that the greeting does not, and its warnings are
    # about what clients send: they could fill a disk.
    logging.getLogger("uvicorn").setLevel(max(logging.ERROR, logging.getLogger().level))
