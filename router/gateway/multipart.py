"""Forms (audio uploads): the one field that routing needs, found and replaced in place.

Everything else, the audio above all, passes byte for byte.
"""

from __future__ import annotations

import re

from router.gateway.problems import Problem
from router.gateway.wire import (
    NO_LIMIT,
    BadRequestError,
    RoutingFields,
    routing_fields,
    with_model,
)

_BOUNDARY = re.compile(rb'boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_NAME = re.compile(rb'(?:^|;)\s*name="([^"]*)"', re.IGNORECASE)
_FILE = re.compile(rb';\s*filename="([^"\r\n]*)"', re.IGNORECASE)
_DISPOSITION = re.compile(rb"(?:^|\r\n)content-disposition:([^\r\n]*)", re.IGNORECASE)
MOST_PARTS = 100
_TRUE = (b"true", b"1")


def is_form(content_type: bytes) -> bool:
    """Whether a body of this type is a form."""
    return content_type[:19].lower() == b"multipart/form-data"


def fields_of(body: bytes, content_type: bytes, max_depth: int = NO_LIMIT) -> RoutingFields:
    """What routing needs of a body, JSON (nested ``max_depth`` deep at most) or form.

    Raises:
        BadRequestError: it is neither, or names no model.
    """
    if content_type == b"application/json" or not is_form(content_type):
        return routing_fields(body, max_depth)
    spans = _fields(body, content_type)
    if b"model" not in spans:
        raise BadRequestError(_bad("The form has no field 'model'.", "missing_model"))
    start, end = spans[b"model"]
    model = body[start:end].decode("utf-8", "replace")
    start, end = spans.get(b"stream", (0, 0))
    return RoutingFields(model=model, stream=body[start:end].lower() in _TRUE)


def renamed(body: bytes, model: str, content_type: bytes) -> bytes:
    """The body with another model's name, every other byte untouched."""
    if not is_form(content_type):
        return with_model(body, model)
    start, end = _fields(body, content_type)[b"model"]
    return body[:start] + model.encode() + body[end:]


def form_of(body: bytes, content_type: bytes) -> dict[str, tuple[str, bytes]]:
    """Every field with its file name, empty if it is none, and its value.

    Raises:
        BadRequestError: this is no form.
    """
    if not is_form(content_type):
        raise BadRequestError(_bad("Send a form: multipart/form-data.", "invalid_form"))
    form = {}
    for name, (start, end) in _fields(body, content_type).items():
        head = body[body.rfind(b"\r\n--", 0, start) + 2 : start]
        file = _FILE.search(head)
        told = file[1].decode("utf-8", "replace")[:255] if file else ""
        form[name.decode("utf-8", "replace")] = (told, body[start:end])
    return form


def _fields(body: bytes, content_type: bytes) -> dict[bytes, tuple[int, int]]:
    """Where the values of the fields are; files count as fields too."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise BadRequestError(_bad("The form's content type has no boundary.", "invalid_form"))
    line = b"--" + (found[1] or found[2])
    spans: dict[bytes, tuple[int, int]] = {}
    at = body.find(line)
    for _ in range(MOST_PARTS):
        head = at + len(line)
        if at < 0 or body[head : head + 2] != b"\r\n":
            break
        value = body.find(b"\r\n\r\n", head)
        following = body.find(b"\r\n" + line, head)
        if value < 0 or following < value + 4:
            break
        disposition = _DISPOSITION.search(body, head, value)
        name = _NAME.search(disposition[1]) if disposition else None
        if name is not None:
            spans.setdefault(name[1], (value + 4, following))
        at = following + 2
    return spans


def _bad(message: str, code: str) -> Problem:
    return Problem(400, message, code=code, param="model" if code == "missing_model" else None)
