"""nginx as a load balancer: the servers of its ``upstream`` blocks."""

from __future__ import annotations

import re
from collections.abc import Mapping

from router.cli.importers.found import Engine, Found, base_url

_BLOCK = re.compile(r"\bupstream\s+(?P<name>\S+)\s*\{(?P<body>[^}]*)\}")
_COMMENT = re.compile(r"#[^\n]*")
WHY: Mapping[str, str] = {
    "keepalive": "connections are kept and bounded by themselves",
    "keepalive_timeout": "connections are kept and bounded by themselves",
    "keepalive_requests": "connections are kept and bounded by themselves",
    "zone": "processes share through Redis or among themselves (shared.url)",
    "hash": "prefixes of prompts are followed; sessions by x-session-id",
    "ip_hash": "prefixes of prompts are followed; sessions by x-session-id",
    "sticky": "prefixes of prompts are followed; sessions by x-session-id",
}
METHODS = ("least_conn", "ip_hash", "hash", "random", "least_time")
_SERVER_WHY = {
    "weight": "what a card can do is known by its type, and learned",
    "max_fails": "set reliability.breaker.failure_threshold, for all",
    "fail_timeout": "set reliability.breaker.open_s, for all",
    "max_conns": "the policy keeps engines from overflowing",
    "backup": "give it a card of its own; it is used where that is faster",
    "down": "left out",
}


def is_nginx(text: str) -> bool:
    """Whether a text has an ``upstream`` block."""
    return bool(_BLOCK.search(_COMMENT.sub("", text)))


def read_nginx(text: str) -> Found:
    """Take the upstream blocks apart; what else nginx does, it may go on doing in front."""
    found = Found("nginx's upstream blocks")
    plain = _COMMENT.sub("", text)
    for block in _BLOCK.finditer(plain):
        for directive in filter(None, map(str.split, block["body"].split(";"))):
            _directive(found, block["name"], directive)
    rest = _BLOCK.sub("", plain)
    timeouts = re.findall(r"\b(proxy_read_timeout|proxy_connect_timeout)\s+([^;]+);", rest)
    for name, value in timeouts:
        found.lose(
            f"{name} {value}",
            "set reliability.idle_timeout_s or connect_timeout_s, and keep nginx's longer",
        )
    if re.search(r"\bserver\s*\{", rest):
        found.notes.append(
            "TLS, names and paths: nginx may stay in front; deploy/nginx/motley.conf streams"
        )
    return found


def _directive(found: Found, upstream: str, words: list[str]) -> None:
    name, *values = words
    shown = f"upstream {upstream}: {' '.join(words)}"
    if name in METHODS:
        found.policy = name
    if name == "server" and values:
        if "down" in values[1:]:
            found.lose(shown, "it is marked down")
            return
        if values[0].startswith("unix:"):
            found.lose(shown, "engines are spoken to over TCP")
            return
        found.engines.append(Engine(base_url(values[0])))
        for option in values[1:]:
            key = option.partition("=")[0]
            found.lose(f"{shown} ({option})", _SERVER_WHY.get(key, "nginx's own"))
    elif name not in METHODS:
        found.lose(shown, WHY.get(name, "nginx's own"))
