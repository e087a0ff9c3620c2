"""What both front ends do before a body is read: which paths are hot, who may come in."""

from __future__ import annotations

from collections.abc import Mapping

from router.gateway.access.gate import Gate
from router.gateway.engine import request_id_of
from router.gateway.problems import Problem
from router.gateway.wire import Call, Headers

UPLOAD_IDLE_S = 30.0
"""A request that stops arriving for this long is given up."""

LINGER_S = 2.0
"""How long a client may go on sending a body that has been refused."""

HOT_PATHS: Mapping[str, bool] = {
    "/v1/chat/completions": True,
    "/v1/completions": True,
    "/v1/responses": True,
    "/v1/messages": True,
    "/v1/embeddings": False,
    "/v1/rerank": False,
    "/v1/score": False,
    "/v1/classify": False,
    "/tokenize": False,
    "/detokenize": False,
}
"""Paths relayed to a backend, and whether they generate tokens."""


class Door:
    """Lets calls in or says why not.

    Args:
        gate: knows the callers; everybody is let in when it has no keys.
        max_body_bytes: longest body accepted.
    """

    def __init__(self, gate: Gate, max_body_bytes: int) -> None:
        self._gate = gate
        self.max_body_bytes = max_body_bytes

    def call(self, path: str, query: bytes, headers: Headers) -> Call:
        """A call without its body.

        Args:
            path: one of ``HOT_PATHS``.
            query: without the question mark.
            headers: names in lower case.
        """
        call = Call(
            path=path.encode("ascii"),
            query=query,
            headers=headers,
            body=b"",
            request_id="",
            generates=HOT_PATHS[path],
        )
        call.request_id = request_id_of(call.named.get(b"x-request-id"))
        return call

    def refusal(self, call: Call) -> Problem | None:
        """Why its body need not be read."""
        caller = self._gate.admit(call.named)
        if isinstance(caller, Problem):
            return caller
        call.caller = caller
        length = call.named.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.max_body_bytes:
            return self.too_large()
        return None

    def too_large(self) -> Problem:
        """The answer to a body over the limit."""
        return Problem(
            413,
            f"The request body is larger than {self.max_body_bytes} bytes. Send less, or raise "
            "server.max_body_bytes.",
            code="request_too_large",
        )


def upload_timeout() -> Problem:
    """The answer to a request that stopped arriving."""
    return Problem(
        408,
        f"Nothing more of the request arrived for {UPLOAD_IDLE_S:g} s.",
        code="upload_timeout",
    )


def refusal_headers(problem: Problem, request_id: str) -> Headers:
    """Headers of an answer given without reading further: the connection ends with it."""
    return [
        *problem.headers(),
        (b"x-request-id", request_id.encode()),
        (b"connection", b"close"),
    ]
