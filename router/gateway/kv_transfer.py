"""What engines want to hear when two of them share a request: their own protocols.

vLLM (``--kv-transfer-config``, NIXL and the connectors that follow it): the prefill side gets the
request with ``max_tokens: 1`` and ``kv_transfer_params`` that ask it to keep the KV; it answers
with the parameters by which the decode side, which is asked next, fetches it. SGLang
(``--disaggregation-mode``): both sides get the request at once, with the address of the prefill
side's bootstrap server and a random room in which the two meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import getrandbits
from typing import Any

import msgspec

from router.gateway.upstream import Address

KEEP_FOR_DECODE: Mapping[str, Any] = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}
DEFAULT_BOOTSTRAP_PORT = 8998
SHAREABLE = frozenset((b"/v1/chat/completions", b"/v1/completions"))

_Fields = dict[str, msgspec.Raw]
_decode = msgspec.json.Decoder(_Fields).decode
_NOT_FOR_PREFILL = ("stream_options", "min_tokens", "min_completion_tokens")


class _Shape(msgspec.Struct):
    n: object = None
    best_of: object = None
    prompt: msgspec.Raw = msgspec.Raw()
    echo: object = None
    prompt_logprobs: object = None


class _Answer(msgspec.Struct):
    kv_transfer_params: dict[str, Any] | None = None


def shareable(path: bytes, body: bytes) -> bool:
    """Whether two backends may share this request: one prompt, one answer, nothing of the prompt
    in the answer."""
    if path not in SHAREABLE:
        return False
    try:
        shape = msgspec.json.decode(body, type=_Shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    plain = shape.n in (None, 1) and shape.best_of in (None, 1)
    quiet = not shape.echo and shape.prompt_logprobs is None
    return plain and quiet and not bytes(shape.prompt).lstrip().startswith(b"[")


def with_fields(body: bytes, fields: Mapping[str, Any]) -> bytes:
    """The body with top-level fields set; the values of all others keep their bytes."""
    known = _decode(body)
    known.update({name: msgspec.Raw(msgspec.json.encode(v)) for name, v in fields.items()})
    return msgspec.json.encode(known)


def prompt_only(body: bytes) -> bytes:
    """The request for a prefill side of vLLM: all of the prompt, one token, nothing streamed."""
    known = _decode(body)
    for name in _NOT_FOR_PREFILL:
        known.pop(name, None)
    wanted: dict[str, Any] = {"stream": False, "max_tokens": 1}
    if "max_completion_tokens" in known:
        wanted["max_completion_tokens"] = 1
    wanted["kv_transfer_params"] = KEEP_FOR_DECODE
    known.update({name: msgspec.Raw(msgspec.json.encode(v)) for name, v in wanted.items()})
    return msgspec.json.encode(known)


def kept(answer: bytes) -> dict[str, Any] | None:
    """Where a prefill side of vLLM keeps the KV; ``None`` if it does not say."""
    try:
        return msgspec.json.decode(answer, type=_Answer).kv_transfer_params or None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def meeting(address: Address, port: int | None) -> dict[str, Any]:
    """Where the two sides of SGLang meet for one request."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    return {
        "bootstrap_host": host,
        "bootstrap_port": port or DEFAULT_BOOTSTRAP_PORT,
        "bootstrap_room": getrandbits(63),
    }
