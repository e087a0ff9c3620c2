"""Qwen-Bailian JSONL: chat turns with 16-token block ids.

``{"chat_id", "parent_chat_id" (-1 for a first turn), "timestamp" (seconds), "input_length",
"output_length", "type", "turn", "hash_ids"}``. The published ids hash each block's content, so
they are chained here to become prefix hashes. A session is named after the first turn of its
chain. Source: Wang et al., "KVCache Cache in the Wild", ATC 2025,
``alibaba-edu/qwen-bailian-usagetraces-anon`` (Apache-2.0).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import msgspec

from simulator.traces.parsing import Numbered, chain, full_blocks, parse_each
from simulator.traces.record import ReadReport, TraceRecord
from simulator.traces.source import Line

BLOCK_TOKENS = 16
_REMEMBERED_CHATS = 200_000


class _BailianLine(msgspec.Struct, forbid_unknown_fields=True):
    chat_id: int
    timestamp: float
    input_length: int
    output_length: int
    parent_chat_id: int = -1
    type: str = "text"
    turn: int = 1
    hash_ids: list[int] = []


def read_bailian(lines: Iterator[Line], report: ReadReport) -> Iterator[Numbered]:
    """Yield the requests of a Bailian trace; the type of a request becomes its tenant."""
    decoder = msgspec.json.Decoder(_BailianLine)
    roots: OrderedDict[int, int] = OrderedDict()

    def parse(text: str) -> TraceRecord:
        line = decoder.decode(text)
        hashes = chain(full_blocks(line.hash_ids, line.input_length, BLOCK_TOKENS))
        return TraceRecord(
            line.timestamp,
            line.input_length,
            line.output_length,
            tenant=line.type,
            session=f"chat-{_root_of(line, roots)}",
            prefix_hashes=hashes,
            prefix_block_tokens=BLOCK_TOKENS if hashes else 0,
        )

    return parse_each(lines, parse, report)


def _root_of(line: _BailianLine, roots: OrderedDict[int, int]) -> int:
    """First turn of this chat; the memory of chats is bounded so that reading is, too."""
    parent = line.parent_chat_id
    root = line.chat_id if parent < 0 else roots.get(parent, parent)
    roots[line.chat_id] = root
    if len(roots) > _REMEMBERED_CHATS:
        roots.popitem(last=False)
    return root
