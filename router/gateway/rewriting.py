"""Values of a JSON body are replaced; every other byte stays as the client sent it."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
"""Never gives anything back, or every backslash of 50 MB would cost 100 bytes of memory."""
MOST_TIMES = 1_000
"""A key looked at in its place costs 3 us each time that it stands there, at any depth."""
_COLON = re.compile(rb"\s*:\s*")
_INTEGER = re.compile(rb"-?[0-9]+(?=\s*[,}])")


def with_model(body: bytes, model: str) -> bytes:
    """The body with its top-level ``model`` replaced, every other byte untouched.

    Needed for aliases only: the engine knows the model by its own name.

    Args:
        body: a JSON object, as ``routing_fields`` accepted it.
        model: the name the engine knows.
    """
    replacement = msgspec.json.encode(model)
    return _replaced(body, b'"model"', _STRING, lambda _: replacement)


def with_priority_turned(body: bytes) -> bytes:
    """The body with its top-level ``priority`` negated, every other byte untouched.

    Clients get one order, vLLM's: the lower number goes first. SGLang takes the higher one.
    """
    if b'"priority"' not in body:
        return body
    return _replaced(body, b'"priority"', _INTEGER, _turned)


def _turned(digits: bytes) -> bytes:
    return digits[1:] if digits.startswith(b"-") else b"-" + digits


def _replaced(
    body: bytes, key: bytes, value: re.Pattern[bytes], by: Callable[[bytes], bytes]
) -> bytes:
    """The body with other values of a top-level key."""
    if body.count(key) > MOST_TIMES:
        return _rewritten(body, key.strip(b'"').decode(), value, by)
    parts: list[bytes] = []
    done = 0
    for start, end in _values(body, key, value):
        parts += (body[done:start], by(body[start:end]))
        done = end
    return b"".join((*parts, body[done:])) if parts else body


def _rewritten(
    body: bytes, name: str, value: re.Pattern[bytes], by: Callable[[bytes], bytes]
) -> bytes:
    """The same, of a body made to keep us busy: each key once, and what is between them anew."""
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    told = bytes(fields.get(name, b""))
    if value.match(told + b"}"):
        fields[name] = msgspec.Raw(by(told))
    return msgspec.json.encode(fields)


def _values(body: bytes, key: bytes, value: re.Pattern[bytes]) -> list[tuple[int, int]]:
    """Where the values of a top-level key are.

    Bodies may be 50 MB, and nobody is served meanwhile: strings and brackets between two places
    where the key stands are looked at by the piece, not one by one.
    """
    spans: list[tuple[int, int]] = []
    depth = end = 0
    at = body.find(key)
    while at >= 0:
        between = _STRING.sub(b"", body[end:at])
        quote = between.find(b'"')
        if quote < 0:
            end = at + len(key)
        else:  # of a string that ends in what looks like the key
            end = _end_of_string(body, at - (len(between) - quote))
            between = between[:quote]
        depth += _depth(between)
        colon = _COLON.match(body, end) if depth == 1 and quote < 0 else None
        found = value.match(body, colon.end()) if colon is not None else None
        if found is not None:
            spans.append(found.span())
        at = body.find(key, end)
    return spans


def _end_of_string(body: bytes, start: int) -> int:
    found = _STRING.match(body, start)
    return found.end() if found is not None else len(body)


def _depth(text: bytes) -> int:
    """How much deeper it is behind a text without strings than before it."""
    opened = text.count(b"{") + text.count(b"[")
    return opened - text.count(b"}") - text.count(b"]")
