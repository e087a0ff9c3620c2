"""Errors as the clients see them: one OpenAI shape, whatever an engine said.

The shape is ``{"error": {"message", "type", "param", "code"}}``. Engines answer in at least six
others (recorded from vLLM, SGLang and llama.cpp): flat objects, ``{"error": "text"}``,
``{"detail": ...}``, plain text, empty bodies, and error events inside a 200 stream.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import msgspec

from router.domain.decision import Reject

GONE_RETRY_S = 5.0
"""An engine takes its time to load a model."""

RETRY_AFTER_S = 1.0
"""What a client should wait when nobody knows better."""

_GZIP_OR_ZLIB = 47  # zlib's number for "see for yourself"
MOST_PLAIN_BYTES = 65_536
_NONE: Mapping[bytes, bytes] = {}

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One error answer.

    Attributes:
        status: HTTP status.
        message: names the thing and the remedy.
        code: machine-readable, or ``None``.
        param: the field of the request that is wrong, or ``None``.
        retry_after_s: value of ``Retry-After``; ``None`` leaves the header out.
        type: OpenAI's error type; derived from the status when empty.
    """

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    retry_after_s: float | None = None
    type: str = ""

    def body(self) -> bytes:
        """The JSON document."""
        return msgspec.json.encode({"error": self._fields()})

    def event(self) -> bytes:
        """The same, as one event of a stream that has already begun."""
        return b"data: " + self.body() + b"\n\n"

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Headers that belong to this answer, its length included."""
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(self.body())),
        ]
        if self.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % max(1, ceil(self.retry_after_s))))
        return headers

    def _fields(self) -> dict[str, str | None]:
        usual = "invalid_request_error" if self.status < 500 else "api_error"
        kind = self.type or _TYPES.get(self.status, usual)
        return {"message": self.message, "type": kind, "param": self.param, "code": self.code}


DEFECT = Problem(
    500, "The gateway failed on this request; its log says why.", code="internal_error"
)


def from_reject(reject: Reject) -> Problem:
    """The answer to a request that the dispatcher would not place."""
    status, param, code = {
        "unknown_model": (404, "model", "model_not_found"),
        "context_too_long": (400, "messages", "context_length_exceeded"),
        "slo_unattainable": (429, None, "slo_unattainable"),
        "wait_too_long": (429, None, "wait_too_long"),
        "shed": (429, None, "shed"),
    }.get(reject.reason, (503, None, reject.reason))
    retry = reject.retry_after_s if status in (429, 503) else None
    if status == 503 and retry is None:
        retry = RETRY_AFTER_S
    return Problem(status, reject.message, code=code, param=param, retry_after_s=retry)


def model_gone(model: str) -> Reject:
    """For a model whose last discovered backend has left, a moment ago."""
    message = (
        f"No backend of {model!r} is there at the moment; the last one has left. Try again shortly."
    )
    return Reject("no_healthy_backend", message, retry_after_s=GONE_RETRY_S)


def from_engine(
    status: int, body: bytes, backend: str, headers: Mapping[bytes, bytes] = _NONE
) -> Problem:
    """An engine's error answer, brought into the one shape.

    Args:
        status: the engine's HTTP status.
        body: the engine's answer, whole or its beginning.
        backend: named in the message when the engine gave none.
        headers: of the answer, by name in lower case.
    """
    coding = headers.get(b"content-encoding", b"identity").lower()
    fields = _fields(body if coding == b"identity" else _plain(body))
    message = fields.get("message") or f"Backend {backend} answered {status} and said nothing."
    code = fields.get("code")
    retry = _retry_after_s(headers.get(b"retry-after", b"")) if status in (429, 503) else None
    return Problem(
        status,
        str(message),
        code=_code(code, status, str(message)),
        param=fields["param"] if isinstance(fields.get("param"), str) else None,
        retry_after_s=retry,
        type=_type(fields.get("type")),
    )


def in_band(event: bytes, backend: str) -> Problem | None:
    """The error inside one ``data:`` event, or ``None`` if it is an ordinary one.

    SGLang answers 200 and then tells of its full queue (503) or of a bad request (400) in the
    first event, so an event is read before the status is passed on.
    """
    if b'"error"' not in event:
        return None
    for line in event.splitlines():
        if not line.startswith(b"data:"):
            continue
        try:
            document = msgspec.json.decode(line[5:])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if not isinstance(document, dict):
            return None
        error = document if document.get("type") == "error" else None  # the Responses API's
        error = document.get("error") or error
        if not error:
            return None
        code = error.get("code") if isinstance(error, dict) else None
        status = code if isinstance(code, int) and 400 <= code <= 599 else 500
        return from_engine(status, bytes(line[5:]), backend)
    return None


def _plain(body: bytes) -> bytes:
    """What was compressed on the way, though nobody asked for that; empty if it cannot be read."""
    try:
        return zlib.decompressobj(_GZIP_OR_ZLIB).decompress(body, MOST_PLAIN_BYTES)
    except zlib.error:
        return b""


def _retry_after_s(told: bytes) -> float:
    """When an engine wants to be asked again; a date is not read."""
    return float(told) if told.isdigit() and len(told) <= 5 else RETRY_AFTER_S


def _fields(body: bytes) -> dict[str, Any]:
    """Message, type, param and code, from any of the shapes engines use."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {"message": body[:500].decode("utf-8", "replace").strip()}
    if not isinstance(document, dict):
        return {"message": str(document)[:500]}
    error = document.get("error")
    if isinstance(error, dict):
        return error
    if isinstance(error, str):
        return {"message": error}
    if "message" in document:
        return document
    return {"message": str(document.get("detail") or "")}


def _code(code: object, status: int, message: str) -> str | None:
    """OpenAI's codes are words; engines repeat the HTTP status there."""
    lowered = message.lower()
    if status == 400 and "context length" in lowered:
        return "context_length_exceeded"
    if isinstance(code, str) and not code.isdigit():
        return code
    return "model_not_found" if status == 404 and "model" in lowered else None


def _type(kind: object) -> str:
    """The engine's own type where it is a word; SGLang repeats the status there as well, and an
    event of the Responses API says only that it is an error."""
    return kind if isinstance(kind, str) and not kind.isdigit() and kind != "error" else ""


UNAUTHORIZED = Problem(
    401,
    "No valid API key. Send one of the gateway's keys as 'Authorization: Bearer KEY'.",
    code="invalid_api_key",
)


class ProblemError(Exception):
    """Carries an answer out of an endpoint."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem
