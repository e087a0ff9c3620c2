"""Errors of ``/v1/messages`` in the shape that Anthropic's clients read.

``{"type": "error", "error": {"type", "message"}}``, and as a stream's event ``event: error``. Our
own ``code`` and ``param`` ride along where they say something; Anthropic's SDKs pass over them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import msgspec

from router.gateway.problems import Problem

PATHS = frozenset((b"/v1/messages", b"/v1/messages/count_tokens"))
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


@dataclass(frozen=True, slots=True)
class AnthropicProblem(Problem):
    """The same answer in Anthropic's words."""

    def body(self) -> bytes:
        """The JSON document."""
        error = {"type": _TYPES.get(self.status, "api_error"), "message": self.message}
        more = {"code": self.code, "param": self.param}
        error.update({name: value for name, value in more.items() if value is not None})
        return msgspec.json.encode({"type": "error", "error": error})

    def event(self) -> bytes:
        """The same, as one event of a stream that has already begun."""
        return b"event: error\ndata: " + self.body() + b"\n\n"


def spoken(problem: Problem, path: bytes) -> Problem:
    """The problem as clients of this path read it."""
    if path not in PATHS:
        return problem
    return AnthropicProblem(*(getattr(problem, one.name) for one in fields(problem)))
