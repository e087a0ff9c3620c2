"""What both front ends do before a body is read: which paths are hot, who may come in."""

from __future__ import annotations

from collections.abc import Mapping

from router.gateway.access.gate import Gate
from router.gateway.known_heads import Head, KnownHeads
from router.gateway.problems import Problem
from router.gateway.request_id import request_id_of
from router.gateway.wire import Call, Headers

UPLOAD_IDLE_S = 30.0
"""A request that stops arriving for this long is given up."""

LINGER_S = 2.0
"""How long a client may go on sending a body that has been refused."""

HOT_PATHS: Mapping[bytes, bool] = {
    b"/v1/chat/completions": True,
    b"/v1/completions": True,
    b"/v1/responses": True,
    b"/v1/messages": True,
    b"/v1/embeddings": False,
    b"/v1/rerank": False,
    b"/v1/score": False,
    b"/v1/classify": False,
    b"/v1/messages/count_tokens": False,
    b"/v1/audio/transcriptions": True,
    b"/v1/audio/translations": True,
    b"/v1/audio/speech": True,
    b"/rerank": False,
    b"/v2/rerank": False,
    b"/score": False,
    b"/classify": False,
    b"/pooling": False,
    b"/tokenize": False,
    b"/detokenize": False,
}
"""Paths relayed to a backend, and whether they generate tokens."""


class Door:
    """Lets calls in or says why not.

    Args:
        gate: knows the callers; everybody is let in when it has no keys.
        max_body_bytes: longest body accepted.

    Attributes:
        heads: those that have been read before.
    """

    def __init__(self, gate: Gate, max_body_bytes: int) -> None:
        self._gate = gate
        self.max_body_bytes = max_body_bytes
        self.heads = KnownHeads()

    def known(self, head: Head) -> Call:
        """A call without its body, whose head has been read before."""
        path, named = head.path, head.named
        return Call(
            path,
            head.query,
            head.headers,
            named,
            request_id_of(None),
            HOT_PATHS[path],
            passed=head.passed,
        )

    def call(
        self, path: bytes, query: bytes, headers: Headers, named: Mapping[bytes, bytes]
    ) -> Call:
        """A call without its body.

        Args:
            path: one of ``HOT_PATHS``.
            query: without the question mark.
            headers: names in lower case.
            named: the same by name, the last of each.
        """
        request_id = request_id_of(named.get(b"x-request-id"))
        return Call(path, query, headers, named, request_id, HOT_PATHS[path])

    def refusal(self, call: Call) -> Problem | None:
        """Why its body need not be read."""
        if self._gate:
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
        return too_large(self.max_body_bytes)


def too_large(limit: int) -> Problem:
    """The answer to a body over ``limit`` bytes."""
    return Problem(
        413,
        f"The request body is larger than {limit} bytes. Send less, or raise "
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
