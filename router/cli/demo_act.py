"""What can be done to a running demo: kill an engine, throttle it, make it well again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx

from router.domain.errors import ConfigError, UnknownNameError

BACK_AFTER_S = 30.0
THROTTLE_FACTOR = 4.0

Faults = Mapping[str, Any]

FAULTS: Mapping[str, tuple[Faults, str]] = {
    "kill": (
        {"kill": True, "restart_after_s": BACK_AFTER_S},
        f"crashed; it will be back in {BACK_AFTER_S:.0f} s with a cold cache",
    ),
    "throttle": (
        {"slow_factor": THROTTLE_FACTOR},
        f"takes {THROTTLE_FACTOR:g} times as long from now on",
    ),
    "hang": ({"hang": True}, "generates nothing any more, and looks healthy"),
    "heal": ({}, "is well again"),
}
"""Action -> what the engine is told, and what happened to it."""


def act(action: str, name: str, url: str) -> str:
    """Do something to an engine of the demo whose gateway is at ``url``.

    Args:
        action: key of ``FAULTS``.
        name: of the backend; ``v100-1`` will do for ``v100-32-1``.
        url: of the gateway.

    Returns:
        A sentence on what happened.

    Raises:
        UnknownNameError: no such action or backend.
        ConfigError: no demo runs there, or the engine does not answer.
    """
    if action not in FAULTS:
        raise UnknownNameError("thing to do to a demo", action, tuple(FAULTS))
    faults, happened = FAULTS[action]
    urls = _engines(url)
    found = resolve(name, tuple(urls))
    _ask(
        lambda: httpx.post(f"{urls[found]}/fault", json=faults, timeout=5.0),
        f"{found} at {urls[found]} does not answer: was it killed? It comes back by itself",
    )
    return f"{found} {happened}. Watch it at {url}/"


def resolve(name: str, known: Sequence[str]) -> str:
    """The backend that is meant: its name, or its GPU family and number where that is unique.

    Raises:
        UnknownNameError: none or several could be meant.
    """
    if name in known:
        return name
    family, _, number = name.rpartition("-")
    meant = [k for k in known if family and k.startswith(f"{family}-") and k.endswith(f"-{number}")]
    if len(meant) != 1:
        raise UnknownNameError("backend of the demo", name, tuple(meant or known))
    return meant[0]


def _engines(url: str) -> dict[str, str]:
    answer = _ask(
        lambda: httpx.get(f"{url}/workers", timeout=5.0),
        f"no demo answers at {url}: start one with motley demo, or say its --port",
    )
    return {worker["name"]: worker["url"] for worker in answer.json()["workers"]}


def _ask(call: Callable[[], httpx.Response], otherwise: str) -> httpx.Response:
    try:
        answer = call()
    except httpx.HTTPError as error:
        raise ConfigError(otherwise) from error
    if not answer.is_success:
        raise ConfigError(
            f"{answer.request.url} answered {answer.status_code}: {answer.text[:200]}"
        )
    return answer
