"""Fingerprints of a prompt's beginning, so that a policy can tell who has it cached.

Bytes stand for tokens: equal bytes give equal tokens, whatever the tokenizer. CRC-32 chains by
itself (the checksum of a block, begun at the checksum of all before it) and costs a microsecond
a kilobyte; two prompts taken for one cost a misjudged request, nothing worse.
"""

from __future__ import annotations

from zlib import crc32

BLOCK_BYTES = 1024
"""About 230 tokens: prefixes worth a detour are system prompts and conversations."""
MAX_BLOCKS = 64
"""Beyond 64 kB two prompts that agree so far agree enough."""


def prefix_hashes(prompt: memoryview) -> tuple[int, ...]:
    """One hash per whole block; each stands for everything up to its end.

    Args:
        prompt: the prompt as the client wrote it, its first bytes first.
    """
    whole = min(len(prompt) // BLOCK_BYTES, MAX_BLOCKS)
    if not whole:
        return ()
    chained = 0
    starts = range(0, whole * BLOCK_BYTES, BLOCK_BYTES)
    return tuple([chained := crc32(prompt[at : at + BLOCK_BYTES], chained) for at in starts])
