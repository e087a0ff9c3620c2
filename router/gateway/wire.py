"""The request's bytes: what routing must know of them, and nothing else.

The body is forwarded verbatim, so only the routing fields are decoded (5 us for 16 kB); every
other field, known or not, passes untouched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from router.gateway.json_depth import deeper_than
from router.gateway.problems import Problem, ProblemError

if TYPE_CHECKING:
    from router.gateway.access.gate import Caller

Headers = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
"""Headers that belong to one connection (RFC 9110, 7.6.1)."""

_IMAGE = re.compile(rb";base64,[A-Za-z0-9+/=\\]+")
_IMAGE_BYTES = 4_000
"""An image costs about a thousand tokens, however long its base64."""


_NOTHING = msgspec.Raw()
NO_LIMIT = 0
"""Of nesting, beyond what Python itself can stand."""


class RoutingFields(msgspec.Struct):
    """The fields of a request body that routing reads. Wrong types are the engine's to judge,
    except for ``model``."""

    model: str | None = None
    stream: object = None
    max_tokens: int | float | None = None
    max_completion_tokens: int | float | None = None
    max_output_tokens: int | float | None = None
    messages: msgspec.Raw = _NOTHING
    prompt: msgspec.Raw = _NOTHING
    input: msgspec.Raw = _NOTHING
    slo_class: object = None
    service_tier: object = None
    motley_continue: object = None

    def prompt_text(self) -> memoryview:
        """The prompt as the client wrote it, still JSON; empty if there is none."""
        return memoryview(self.messages or self.prompt or self.input)


class _AnyLimits(RoutingFields):
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None


_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_DECODER = msgspec.json.Decoder(RoutingFields)
_LENIENT = msgspec.json.Decoder(_AnyLimits)


@dataclass(slots=True)
class Call:
    """One request as the front end hands it over.

    Attributes:
        path: path as configured for the hot routes, bytes.
        query: query string without the question mark; empty if none.
        headers: names in lower case, in the client's order.
        named: the same by name, the last of each; as they came, whatever becomes of ``headers``.
        request_id: ``x-request-id``, echoed or made.
        generates: whether the path generates tokens (else one pass: embeddings, rerank).
        body: the whole body; dropped once an answer has begun, for it may be large and the
            answer long.
        span: the trace span of this request, where requests are traced.
        caller: whom the gate let in; ``None`` where everybody may come.
        passed: of a head that has been read before, the lines that go on to an engine, by the
            names that are left out of them.
    """

    path: bytes
    query: bytes
    headers: Headers
    named: Mapping[bytes, bytes]
    request_id: str
    generates: bool = True
    body: bytes = b""
    span: object = None
    caller: Caller | None = None
    passed: dict[frozenset[bytes], bytes] | None = None

    @property
    def content_type(self) -> bytes:
        """The body's media type, in lower case as far as the semicolon."""
        return self.named.get(b"content-type", b"")


class BadRequestError(ProblemError):
    """The request cannot be understood; carries the answer."""


def routing_fields(body: bytes, max_depth: int = NO_LIMIT) -> RoutingFields:
    """Decode what routing needs.

    Args:
        body: JSON.
        max_depth: of nesting.

    Raises:
        BadRequestError: not JSON, not an object, nested too deep, or without a model.
    """
    try:
        fields = _DECODER.decode(body)
    except msgspec.ValidationError as error:
        fields = _lenient(body, error)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequestError(_bad(f"The request body is not valid JSON: {error}.")) from error
    except RecursionError as error:
        raise BadRequestError(_bad("The request body is nested too deep.")) from error
    if max_depth != NO_LIMIT and deeper_than(body, max_depth):
        message = (
            f"The request body is nested too deep: more than {max_depth} levels. Send less, or "
            "raise server.max_json_depth."
        )
        raise BadRequestError(_bad(message))
    if not fields.model:
        raise BadRequestError(
            _bad(
                "The request names no model. Set 'model' to one that GET /v1/models lists.",
                code="missing_model",
                param="model",
            )
        )
    return fields


def _lenient(body: bytes, error: msgspec.ValidationError) -> RoutingFields:
    """Token limits of a wrong type are the engine's to judge, and some engines take ``"100"`` for
    a number; the rest is refused."""
    try:
        fields = _LENIENT.decode(body)
    except msgspec.ValidationError:
        param = "model" if "$.model" in str(error) else None
        message = f"The request body is not a request object: {error}."
        raise BadRequestError(_bad(message, param=param)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
        message = f"The request body is not valid JSON: {broken}."
        raise BadRequestError(_bad(message)) from broken
    for name in _LIMITS:
        told = getattr(fields, name)
        is_number = isinstance(told, str) and told.isascii() and told.isdigit() and len(told) < 10
        setattr(fields, name, int(told) if is_number else None)
    return fields


def _bad(message: str, *, code: str = "invalid_json", param: str | None = None) -> Problem:
    return Problem(400, message, code=code, param=param)


def token_limit(fields: RoutingFields) -> int | None:
    """The client's own limit on output tokens, whatever it is called."""
    for value in (fields.max_completion_tokens, fields.max_tokens, fields.max_output_tokens):
        if value is not None and 0 < value < 1e9:
            return int(value)
    return None


def prompt_bytes(body: bytes) -> int:
    """Bytes that cost prompt tokens: the body, with base64 images counted as what they cost."""
    if b";" not in body or not has_images(body):
        return len(body)
    rest, images = _IMAGE.subn(b"", body)
    return len(rest) + images * _IMAGE_BYTES


def has_images(body: bytes) -> bool:
    """Whether the body carries base64, which costs tokens by no ratio."""
    at = body.find(b";")  # 50 times as fast as the whole word, and mostly the end of it
    return at >= 0 and body.find(b";base64,", at) >= 0


def end_to_end(headers: Headers, drop: frozenset[bytes]) -> Headers:
    """Headers to pass on.

    Args:
        headers: names in lower case.
        drop: names to leave out, ``HOP_BY_HOP`` among them; those that ``Connection`` names are
            left out as well.
    """
    kept = [pair for pair in headers if pair[0] not in drop]
    if len(kept) < len(headers) and b"connection" in dict(headers):
        options = b",".join([value for name, value in headers if name == b"connection"])
        named = {token.strip().lower() for token in options.split(b",")}
        return [pair for pair in kept if pair[0] not in named]
    return kept
