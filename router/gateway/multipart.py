"""Forms (audio uploads): the one field that routing needs, found and replaced in place.

Everything else, the audio above all, passes byte for byte.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from router.gateway.problems import Problem
from router.gateway.rewriting import with_model
from router.gateway.wire import (
    NO_LIMIT,
    BadRequestError,
    RoutingFields,
    routing_fields,
)

_PARAMETERS = rb'((?:[ \t]*;[ \t]*[\w*!#$%&+.^`|~-]+=(?:"(?:[^"\\\r\n]|\\[^\r\n])*"|[^\s;"]*))*)'
_TYPE = re.compile(rb"multipart/form-data" + _PARAMETERS + rb"[ \t;]*", re.IGNORECASE)
_DISPOSITION = re.compile(rb"form-data" + _PARAMETERS + rb"[ \t;]*", re.IGNORECASE)
_PARAMETER = re.compile(rb';[ \t]*([^=]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))')
_HEADER = re.compile(rb"([\w!#$%&'*+.^`|~-]+):([^\r\n]*)")
_PLAIN = (b"7bit", b"8bit", b"binary")
MOST_PARTS = 100
MOST_HEAD_BYTES = 8_192
"""Of one part; browsers need a few hundred."""
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
    model = _the_one(b"model", body, content_type)
    streams = [part for part in _parts(body, content_type)[0] if part.name == b"stream"]
    return RoutingFields(
        model=body[model.start : model.end].decode("utf-8", "replace"),
        stream=any(body[part.start : part.end].lower() in _TRUE for part in streams),
    )


def renamed(body: bytes, model: str, content_type: bytes) -> bytes:
    """The body with another model's name, every other byte untouched."""
    if not is_form(content_type):
        return with_model(body, model)
    part = _the_one(b"model", body, content_type)
    return body[: part.start] + model.encode() + body[part.end :]


def form_of(body: bytes, content_type: bytes) -> dict[str, tuple[str, bytes]]:
    """Every field with its file name, empty if it is none, and its value.

    Raises:
        BadRequestError: this is no form, or has a field twice.
    """
    if not is_form(content_type):
        raise BadRequestError(_bad("Send a form: multipart/form-data.", "invalid_form"))
    parts, whole = _parts(body, content_type)
    form: dict[str, tuple[str, bytes]] = {}
    for part in parts:
        name = part.name.decode("utf-8", "replace")
        if name in form:
            raise _twice(name)
        told = part.filename.decode("utf-8", "replace")[:255]
        form[name] = (told, body[part.start : part.end])
    if parts and not whole:
        raise _cut_off()
    return form


class _Part(NamedTuple):
    """One part: what it is called, and where its value is."""

    name: bytes
    filename: bytes
    start: int
    end: int


def _the_one(name: bytes, body: bytes, content_type: bytes) -> _Part:
    """The part of this name. Engines take the last of several, and parse what is not whole in
    ways of their own: what we judge must be what they read."""
    parts, whole = _parts(body, content_type)
    found = [part for part in parts if part.name == name]
    if not found:
        raise BadRequestError(_bad(f"The form has no field '{name.decode()}'.", "missing_model"))
    if len(found) > 1:
        raise _twice(name.decode())
    if not whole:
        raise _cut_off()
    return found[0]


def _parts(body: bytes, content_type: bytes) -> tuple[list[_Part], bool]:
    """The parts, files among them, and whether the form came to its end."""
    line = b"--" + _boundary(content_type)
    parts: list[_Part] = []
    at = 2 if body.startswith(b"\r\n" + line) else 0
    while body.startswith(line + b"\r\n", at):
        if len(parts) == MOST_PARTS:
            message = f"The form has more than {MOST_PARTS} fields."
            raise BadRequestError(_bad(message, "invalid_form"))
        head = at + len(line)
        following = body.find(b"\r\n" + line, head + 2)
        value = body.find(b"\r\n\r\n", head, max(following, head))
        if value < 0:
            break
        if value - head > MOST_HEAD_BYTES:
            raise _unreadable()
        name, filename = _named(body[head + 2 : value])
        parts.append(_Part(name, filename, value + 4, following))
        at = following + 2
    return parts, body.startswith(line + b"--", at)


def _boundary(content_type: bytes) -> bytes:
    """What stands between the parts."""
    found = _TYPE.fullmatch(content_type)
    told = _parameters(found[1]).get(b"boundary", []) if found is not None else []
    if len(told) != 1 or not 1 <= len(told[0]) <= 70:
        message = "The form's content type has no boundary, or not one that can be read."
        raise BadRequestError(_bad(message, "invalid_form"))
    return told[0]


def _named(head: bytes) -> tuple[bytes, bytes]:
    """Name and file name of a part; anything that can be read in two ways is refused."""
    headers: dict[bytes, bytes] = {}
    for line in head.split(b"\r\n"):
        found = _HEADER.fullmatch(line)
        if found is None or found[1].lower() in headers:
            raise _unreadable()
        headers[found[1].lower()] = found[2].strip(b" \t")
    if headers.get(b"content-transfer-encoding", b"binary").lower() not in _PLAIN:
        raise _unreadable()
    told = _DISPOSITION.fullmatch(headers.get(b"content-disposition", b""))
    given = _parameters(told[1]) if told is not None else {}
    names, files = given.get(b"name", []), given.get(b"filename", [])
    if len(names) != 1 or b"\\" in names[0] or b"name*" in given or len(files) > 1:
        raise _unreadable()
    return names[0], files[0] if files else b""


def _parameters(text: bytes) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, quoted, plain in _PARAMETER.findall(text):
        found.setdefault(name.lower(), []).append(quoted or plain)
    return found


def _twice(name: str) -> BadRequestError:
    return BadRequestError(_bad(f"The form has the field {name!r} twice.", "invalid_form"))


def _cut_off() -> BadRequestError:
    return BadRequestError(_bad("The form does not come to its end.", "invalid_form"))


def _unreadable() -> BadRequestError:
    message = (
        "A part of the form cannot be read for certain: it needs one content-disposition with one "
        "name, on one line, and a value that is not encoded."
    )
    return BadRequestError(_bad(message, "invalid_form"))


def _bad(message: str, code: str) -> Problem:
    return Problem(400, message, code=code, param="model" if code == "missing_model" else None)
