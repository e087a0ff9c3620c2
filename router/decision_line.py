"""How requests, backends and decisions are told in one line of the decision log.

What came after the first logs is written only where it says something, so that those can still be
replayed.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from router.domain.decision import Assign, Decision, Reject, Wait
from router.domain.fleet import BackendSpec
from router.domain.request import Request
from router.fleet_state.capability import Capability

Line = dict[str, Any]

_REQUEST_FIELDS = (
    "request_id",
    "model",
    "arrival_s",
    "prompt_tokens",
    "max_tokens",
    "slo_class",
    "tenant",
    "session",
    "prefix_hashes",
    "prefix_block_tokens",
)
_OPTIONAL_FIELDS = ("fallbacks", "explain", "whole")
"""Written only where they say something, as is ``slo``."""


def asked_of(request: Request, model: str) -> Line:
    """A request as it came, for ``model``: a fallback may answer in its place."""
    facts: Line = {name: getattr(request, name) for name in _REQUEST_FIELDS}
    facts |= {"model": model, "forecast": asdict(request.forecast)}
    facts |= {name: value for name in _OPTIONAL_FIELDS if (value := getattr(request, name))}
    return facts if request.slo is None else {**facts, "slo": asdict(request.slo)}


def facts_of(known: BackendSpec | Capability) -> Line:
    """A backend, or what it can do."""
    later: Line = {"role": "both", "bootstrap_port": None, "kv_events": "", "kv_replay": ""}
    later |= {"kv_bytes_per_token": 0.0, "prefix_caching": True}
    facts = asdict(known)
    return {name: value for name, value in facts.items() if later.get(name, facts) != value}


def side_of(prefill: bool) -> Line:
    """Which of two backends that share a request."""
    return {"prefill": True} if prefill else {}


def told(decision: Decision) -> Line:
    """What the dispatcher answered."""
    match decision:
        case Assign(backend, recalled, prefill):
            line: Line = {"assign": backend.name}
            if prefill is not None:
                line["prefill"] = prefill.name
            return {**line, "recalled": list(recalled)} if recalled else line
        case Wait(reason):
            return {"wait": reason}
        case Reject(reason, _, retry_after_s):
            return {"reject": reason, "retry_after_s": retry_after_s}
