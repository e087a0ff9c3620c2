"""The emulated tokenizer: how prompts are counted, and what is said in answer.

There is no model here, so each rule is chosen to be cheap, deterministic and easy to check:

* A prompt has one token for every four bytes of UTF-8, rounded up, and at least one. Four
  bytes is what English text averages with the tokenizers of Llama 3 and GPT-4.
* Token ``i`` of every answer is the word ``w<i>``, so that a client can tell that every token
  arrived, once, and in order. An answer that is to be continued (``continue_final_message``, or a
  completion's prompt that ends in ``w0 w1 ...``) goes on with the next.
* The natural length of an answer is log-normal and depends only on the prompt and the seeds,
  so the same request gets the same answer from every engine of a fleet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import blake2b
from statistics import NormalDist

BYTES_PER_TOKEN = 4
PREFIX_BLOCK_TOKENS = 16
"""Tokens per hashed prefix block: vLLM's block size. SGLang's radix tree matches single tokens;
one hash a token would cost more than it tells."""


def count_tokens(text: bytes) -> int:
    """Tokens of a prompt: a quarter of its bytes, rounded up, at least one."""
    return max(1, -(-len(text) // BYTES_PER_TOKEN))


def token_ids(text: bytes) -> list[int]:
    """Ids of a prompt's tokens: its four-byte pieces as big-endian numbers."""
    step = BYTES_PER_TOKEN
    return [int.from_bytes(text[i : i + step]) for i in range(0, len(text), step)]


def from_token_ids(ids: list[int]) -> str:
    """The text that ``token_ids`` came from; bytes that are no UTF-8 become U+FFFD."""
    pieces = (abs(i).to_bytes(-(-abs(i).bit_length() // 8)) for i in ids)
    return b"".join(pieces).decode(errors="replace")


def prefix_hashes(text: bytes) -> tuple[int, ...]:
    """Chained 64-bit hashes of the leading full blocks of ``PREFIX_BLOCK_TOKENS`` tokens.

    Two prompts share the first ``k`` hashes exactly if they share the first ``k`` blocks.
    """
    size = PREFIX_BLOCK_TOKENS * BYTES_PER_TOKEN
    hashes: list[int] = []
    digest = b""
    for end in range(size, len(text) + 1, size):
        digest = blake2b(text[end - size : end], key=digest, digest_size=8).digest()
        hashes.append(int.from_bytes(digest))
    return tuple(hashes)


def words(start: int, stop: int) -> str:
    """The text of tokens ``start`` to ``stop - 1``: joined in order they read ``w0 w1 w2``."""
    text = "".join([f" w{i}" for i in range(start, stop)])
    return text[1:] if start == 0 else text


@dataclass(frozen=True, slots=True)
class LengthRule:
    """How long answers get when nothing cuts them.

    Attributes:
        median_tokens: half of the answers are shorter.
        sigma: spread of the logarithm; 0 makes every answer ``median_tokens`` long.

    The defaults give a mean of 176 and a 99th percentile of 823 tokens: chat-like (Splitwise,
    Patel et al. 2024, reports a median of 129 for the Azure conversation trace).
    """

    median_tokens: float = 128.0
    sigma: float = 0.8

    def draw(self, key: bytes, seed: int) -> int:
        """Natural length in tokens of the answer to ``key``, at least one."""
        digest = blake2b(key, digest_size=8, salt=seed.to_bytes(16, signed=True)).digest()
        share = (int.from_bytes(digest) + 0.5) / 2**64
        share = min(max(share, 1e-9), 1 - 1e-9)
        return max(
            1, round(self.median_tokens * math.exp(self.sigma * NormalDist().inv_cdf(share)))
        )
