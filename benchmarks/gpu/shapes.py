"""The models that are timed: sizes alone, of Llama's kind."""

from __future__ import annotations

from dataclasses import dataclass

PAGE_TOKENS = 16
"""Tokens of one page of the KV cache."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocab: int
    tied: bool = False


SHAPES = {
    "llama-3.1-8b": Shape("llama-3.1-8b", 32, 4096, 32, 8, 128, 14336, 128256),
    "llama-3.2-1b": Shape("llama-3.2-1b", 16, 2048, 32, 8, 64, 8192, 128256, tied=True),
    "llama-3.2-3b": Shape("llama-3.2-3b", 28, 3072, 24, 8, 128, 8192, 128256, tied=True),
    "tiny": Shape("tiny", 2, 64, 4, 2, 16, 128, 256),
}
