"""Prompts of exact length: random tokens, so that no two share a prefix unless they should."""

from __future__ import annotations

import numpy as np

from simulator.traces.columns import Trace

FIRST_ID, LAST_ID = 100, 1_100
"""Ids drawn from: past the special tokens of every tokenizer, within every vocabulary."""


def random_prompt(tokens: int, rng: np.random.Generator) -> list[int]:
    """A prompt that shares no block with any other, for all practical purposes."""
    drawn: list[int] = rng.integers(FIRST_ID, LAST_ID, tokens).tolist()
    return drawn


def trace_prompt(trace: Trace, i: int, rng: np.random.Generator, salt: int) -> list[int]:
    """The prompt of request ``i``: equal prefix hashes become equal tokens, the rest is random.

    ``salt`` makes the tokens of a hash differ from one replay to the next.
    """
    block = trace.prefix_block_tokens[i]
    prompt: list[int] = []
    for number in trace.prefix_hashes(i):
        prompt += random_prompt(block, np.random.default_rng([salt, number]))
    prompt = prompt[: trace.input_tokens[i]]
    return prompt + random_prompt(trace.input_tokens[i] - len(prompt), rng)
