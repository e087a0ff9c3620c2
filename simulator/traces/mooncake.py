"""Mooncake JSONL: long prompts with prefix block ids.

``{"timestamp": milliseconds, "input_length", "output_length", "hash_ids": [...]}``; every id
stands for 512 tokens *and all blocks before them*. The conversation trace has 3 s ticks: replay
it with jitter. Source: Qin et al., "Mooncake", FAST 2025, ``kvcache-ai/Mooncake``.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from simulator.traces.parsing import Numbered, full_blocks, parse_each
from simulator.traces.record import ReadReport, TraceRecord
from simulator.traces.source import Line

BLOCK_TOKENS = 512


class _MooncakeLine(msgspec.Struct, forbid_unknown_fields=True):
    timestamp: float
    input_length: int
    output_length: int
    hash_ids: list[int] = []


def read_mooncake(lines: Iterator[Line], report: ReadReport) -> Iterator[Numbered]:
    """Yield the requests of a Mooncake trace."""
    decoder = msgspec.json.Decoder(_MooncakeLine)

    def parse(text: str) -> TraceRecord:
        line = decoder.decode(text)
        hashes = full_blocks(line.hash_ids, line.input_length, BLOCK_TOKENS)
        return TraceRecord(
            line.timestamp / 1000.0,
            line.input_length,
            line.output_length,
            prefix_hashes=hashes,
            prefix_block_tokens=BLOCK_TOKENS if hashes else 0,
        )

    return parse_each(lines, parse, report)
