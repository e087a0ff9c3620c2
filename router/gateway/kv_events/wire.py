"""KV cache events as vLLM and SGLang send them: msgpack, in either of two layouts.

A message has three frames: topic, sequence number (8 bytes, big-endian) and a batch. In SGLang, and
in vLLM for long, structs are arrays (``[ts, events, dp_rank]``, ``["BlockStored", hashes, parent,
tokens, block_size, ...]``); newer vLLM writes maps with the field names and a ``type``. Hashes are
integers or bytes. Fields beyond those named here are passed over, so a newer engine is understood
as far as it says the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from router.domain.errors import BadInputError

BlockHash = int | bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """Blocks entered the cache, each the child of the one before it.

    Attributes:
        hashes: of the blocks, in order.
        parent: the block before the first; ``None`` at the beginning of a prompt.
        block_tokens: tokens of one block.
    """

    hashes: tuple[BlockHash, ...]
    parent: BlockHash | None
    block_tokens: int


@dataclass(frozen=True, slots=True)
class Removed:
    """Blocks left the cache."""

    hashes: tuple[BlockHash, ...]


@dataclass(frozen=True, slots=True)
class Cleared:
    """The cache is empty."""


Event = Stored | Removed | Cleared
_STORED = ("type", "block_hashes", "parent_block_hash", "token_ids", "block_size")
_REMOVED = ("type", "block_hashes")
_ON_GPU = (None, "GPU")


def read_batch(payload: bytes) -> Iterator[Event]:
    """The events of one batch that concern the cache on the card, in order.

    Raises:
        BadInputError: no batch of events.
    """
    try:
        batch = msgspec.msgpack.decode(payload)
    except msgspec.DecodeError as error:
        raise BadInputError(f"a KV event batch is no msgpack: {error}") from error
    events = batch.get("events") if isinstance(batch, Mapping) else _item(batch, 1)
    if not isinstance(events, Sequence) or isinstance(events, str | bytes):
        raise BadInputError("a KV event batch holds no list of events")
    for raw in events:
        event = _read(raw)
        if event is not None:
            yield event


def sequence_number(frame: bytes) -> int:
    """The number of a message; -1 ends a replay."""
    return int.from_bytes(frame, "big", signed=True)


def _item(batch: object, position: int) -> object:
    whole = isinstance(batch, list | tuple) and len(batch) > position
    return batch[position] if whole else None  # type: ignore[index]


def _read(raw: object) -> Event | None:
    try:
        fields = dict(raw) if isinstance(raw, Mapping) else _named(raw)
        kind = fields.get("type")
        if fields.get("medium") not in _ON_GPU:
            return None
        if kind == "BlockStored":
            hashes = tuple(fields["block_hashes"])
            return Stored(hashes, fields["parent_block_hash"], int(fields["block_size"]))
        if kind == "BlockRemoved":
            return Removed(tuple(fields["block_hashes"]))
        return Cleared() if kind == "AllBlocksCleared" else None
    except (KeyError, TypeError, ValueError) as error:
        raise BadInputError(f"a KV event cannot be read: {error!r}") from error


def _named(raw: object) -> dict[str, Any]:
    """An event in the layout of arrays; what follows the block's size is ``lora_id, medium``."""
    if not isinstance(raw, list | tuple) or not raw:
        raise BadInputError(f"a KV event is neither a map nor an array: {raw!r:.60}")
    names = _STORED if raw[0] == "BlockStored" else _REMOVED
    fields = dict(zip(names, raw, strict=False))
    medium = 6 if raw[0] == "BlockStored" else 2
    fields["medium"] = raw[medium] if len(raw) > medium else None
    return fields
