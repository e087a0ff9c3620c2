"""Fingerprints of a prompt's beginning, so that a policy can tell who has it cached.

Bytes stand for tokens: equal bytes give equal tokens, whatever the tokenizer. A block's XXH3 is
seeded with that of all before it, so each hash stands for the whole beginning; 0.4 us a kilobyte,
a third of CRC-32. Two prompts taken for one cost a misjudged request, nothing worse.
"""

from __future__ import annotations

from xxhash import xxh3_64_intdigest

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
    hashes: list[int] = []
    chained = 0
    for start in range(0, whole * BLOCK_BYTES, BLOCK_BYTES):
        chained = xxh3_64_intdigest(prompt[start : start + BLOCK_BYTES], chained)
        hashes.append(chained)
    return tuple(hashes)
