"""A Llama-shaped model with random weights as an engine runs it: paged KV cache, CUDA graphs.

Nothing to serve with: it takes as long as a real model of that shape, and answers nonsense. One
call of ``Engine.step`` is one iteration of continuous batching: some decoding sequences, some
tokens of prompts beside them. Its parts between attentions are CUDA graphs up to the largest of
its graph sizes, a step of decodes alone is one graph, as in vLLM.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.gpu.attention import causal_attention
from benchmarks.gpu.shapes import PAGE_TOKENS, Shape

GRAPH_SIZES = (1, 2, 4, 8, 16, 24, 32, 48, *range(64, 257, 32), *range(320, 2113, 64))
"""Rows that graphs are captured for; a smaller batch is padded up to the next."""
_ALIGNED = 16
"""The card's copies of a step's numbers begin at multiples of this, whatever its size: kernels
are compiled anew for what is not aligned."""
_ROPE_BASE = 500_000.0

Ints = NDArray[np.int32]


@dataclass(frozen=True)
class Chunk:
    """Some tokens of one prompt.

    Attributes:
        first_slot: where its sequence lies in the cache; a prompt lies in one piece.
        done: tokens of it computed before.
        tokens: computed now.
    """

    first_slot: int
    done: int
    tokens: int


class Engine:
    """The model, its cache and its graphs.

    Rows of a step: the decoding sequences first, then the tokens of the prompt.

    Args:
        shape: sizes.
        cache_tokens: slots of the KV cache; the last page is scratch for padding.
        max_seqs, max_tokens: most decoding sequences and most rows of one step.
        max_context: longest sequence.
        device, dtype: where and in what.
        seed: of the weights.
        graph_sizes: rows that graphs are captured for.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        cache_tokens: int,
        max_seqs: int,
        max_tokens: int,
        max_context: int,
        device: str = "cuda",
        dtype: torch.dtype = torch.bfloat16,
        seed: int = 0,
        graph_sizes: Sequence[int] = GRAPH_SIZES,
    ) -> None:
        self.shape, self.graph_sizes = shape, graph_sizes
        self.device = torch.device(device)
        self._make = torch.Generator(device=self.device).manual_seed(seed)
        self._dtype = dtype
        cuda = self.device.type == "cuda"
        self._ops = _operations(cuda=cuda)
        self.processors = (
            torch.cuda.get_device_properties(self.device).multi_processor_count if cuda else 4
        )
        self._weights()
        pages = cache_tokens // PAGE_TOKENS
        self.cache_tokens = (pages - 1) * PAGE_TOKENS
        size = (shape.layers, pages * PAGE_TOKENS, shape.kv_heads, shape.head_dim)
        # Of random content: a card is faster on zeros.
        self.keys, self.values = self._random(size, 1.0), self._random(size, 1.0)
        self.tables = self._whole((max_seqs, -(-max_context // PAGE_TOKENS)))
        self._buffers(max_seqs, max_tokens)
        self._angles = _angles(max_context, shape.head_dim, self.device)
        self._graphs: dict[tuple[str, int, int], torch.cuda.CUDAGraph] = {}
        self.last = self._residual.new_zeros((len(self.emitted), shape.hidden))
        self._pool = torch.cuda.graph_pool_handle() if cuda else None

    def _random(self, size: tuple[int, ...], deviation: float) -> torch.Tensor:
        made = torch.empty(size, dtype=self._dtype, device=self.device)
        return made.normal_(0.0, deviation, generator=self._make)

    def _whole(self, size: tuple[int, ...]) -> torch.Tensor:
        return torch.zeros(size, dtype=torch.int32, device=self.device)

    def _weights(self) -> None:
        s = self.shape
        heads = (s.heads + 2 * s.kv_heads) * s.head_dim

        def stack(rows: int, columns: int) -> torch.Tensor:
            return self._random((s.layers, rows, columns), columns**-0.5)

        self.embedding = self._random((s.vocab, s.hidden), 1.0)
        self.head = self.embedding if s.tied else self._random((s.vocab, s.hidden), 0.02)
        self.qkv = stack(heads, s.hidden)
        self.out = stack(s.hidden, s.heads * s.head_dim)
        self.gate_up, self.down = stack(2 * s.mlp, s.hidden), stack(s.hidden, s.mlp)
        norms = torch.ones((2 * s.layers + 1, s.hidden), dtype=self._dtype, device=self.device)
        self.norms = norms + self._random(tuple(norms.shape), 0.1)

    def _buffers(self, max_seqs: int, max_tokens: int) -> None:
        s = self.shape
        cuda = self.device.type == "cuda"
        self._host = torch.zeros(4 * (max_tokens + _ALIGNED), dtype=torch.int32, pin_memory=cuda)
        self._given = torch.zeros_like(self._host, device=self.device)
        self._told = self._given.view(4, -1)
        self.emitted = torch.zeros(2 * max_seqs, dtype=torch.int64, device=self.device)

        def rows(*size: int) -> torch.Tensor:
            return torch.zeros((max_tokens, *size), dtype=self._dtype, device=self.device)

        self._residual, self._query = rows(s.hidden), rows(s.heads, s.head_dim)
        self._attended = rows(s.heads, s.head_dim)

    def step(
        self,
        tokens: Ints,
        positions: Ints,
        slots: Ints,
        seqs: int,
        chunks: Sequence[Chunk] = (),
    ) -> list[int]:
        """One iteration; the next token of each sequence, and of each prompt so far.

        Args:
            tokens, positions, slots: of each row. A decoding sequence attends to its position
                and all before it, by its row of ``tables``.
            seqs: decoding sequences.
            chunks: the prompts whose tokens follow.
        """
        rows = len(tokens)
        graphed = self._pool is not None and rows <= self.graph_sizes[-1]
        padded = next(n for n in self.graph_sizes if n >= rows) if graphed else rows
        self._tell(tokens, positions, slots, seqs, padded)
        if graphed and not chunks:
            self._graph(("decode", padded, 0), lambda: self._decode_step(padded)).replay()
        else:
            self._mixed_step(padded, seqs, chunks, graphed=graphed)
        return self.emitted[: seqs + len(chunks)].tolist()

    def warm_up(self) -> None:
        """Capture every graph, so that none is captured while times are taken."""
        for size in self.graph_sizes:
            rows = np.zeros(size, dtype=np.int32)
            seqs = min(size, len(self.tables))
            if size == seqs:
                self.step(rows, rows, rows + self.cache_tokens, size)
            self.step(rows, rows, rows + self.cache_tokens, 0, [Chunk(self.cache_tokens, 0, 1)])

    def _tell(self, tokens: Ints, positions: Ints, slots: Ints, seqs: int, padded: int) -> None:
        """Give the card its work, in one piece: at one place for each size, as graphs need it."""
        stride = -(-padded // _ALIGNED) * _ALIGNED
        rows, told = len(tokens), self._host[: 4 * stride].view(4, stride).numpy()
        told[:, rows:] = [[0], [0], [self.cache_tokens], [0]]
        told[:3, :rows] = tokens, positions, slots
        told[3, :seqs] = positions[:seqs] + 1
        told[3, seqs:] = 0
        self._given[: 4 * stride].copy_(self._host[: 4 * stride], non_blocking=True)
        self._told = self._given[: 4 * stride].view(4, stride)[:, :padded]

    def _decode_step(self, seqs: int) -> None:
        self._first(seqs)
        for layer in range(self.shape.layers):
            self._attend_decodes(layer, seqs)
            self._after(layer, seqs)
        self._emit(torch.arange(seqs, device=self.device))

    def _mixed_step(
        self, padded: int, seqs: int, chunks: Sequence[Chunk], *, graphed: bool
    ) -> None:
        def piece(name: str, layer: int, work: Callable[[], None]) -> None:
            if graphed:
                self._graph((name, padded, layer), work).replay()
            else:
                work()

        ends = (seqs + np.cumsum([chunk.tokens for chunk in chunks])).tolist()
        piece("first", 0, lambda: self._first(padded))
        for layer in range(self.shape.layers):
            if seqs:
                self._attend_decodes(layer, seqs)
            for chunk, end in zip(chunks, ends, strict=True):
                self._attend_chunk(layer, end, chunk)
            piece("after", layer, lambda layer=layer: self._after(layer, padded))
        emitting = torch.tensor([*range(seqs), *(end - 1 for end in ends)], device=self.device)
        self._emit(emitting)

    def _first(self, rows: int) -> None:
        self._residual[:rows].zero_()
        embedded = functional.embedding(self._told[0], self.embedding)
        self._normed_qkv(0, embedded, rows)

    def _normed_qkv(self, layer: int, delta: torch.Tensor, rows: int) -> None:
        normed = torch.empty_like(delta)
        self._ops.add_norm(delta, self._residual[:rows], self.norms[2 * layer], normed)
        self._ops.rope_and_store(
            functional.linear(normed, self.qkv[layer]),
            self._angles,
            self._told[1],
            self._told[2],
            self._query[:rows],
            self.keys[layer],
            self.values[layer],
        )

    def _after(self, layer: int, rows: int) -> None:
        """From a layer's attention to the next one's, or to the last norm (in ``_residual``)."""
        attended = functional.linear(self._attended[:rows].flatten(1), self.out[layer])
        normed = torch.empty_like(attended)
        self._ops.add_norm(attended, self._residual[:rows], self.norms[2 * layer + 1], normed)
        gate_up = functional.linear(normed, self.gate_up[layer])
        active = gate_up.new_empty((rows, self.shape.mlp))
        self._ops.silu_mul(gate_up, active)
        delta = functional.linear(active, self.down[layer])
        if layer + 1 < self.shape.layers:
            self._normed_qkv(layer + 1, delta, rows)
        else:
            self._ops.add_norm(delta, self._residual[:rows], self.norms[2 * layer + 2], normed)
            self._residual[:rows].copy_(normed)

    def _emit(self, rows: torch.Tensor) -> None:
        last = torch.index_select(self._residual, 0, rows, out=self.last[: len(rows)])
        logits = functional.linear(last, self.head)
        torch.argmax(logits, dim=-1, out=self.emitted[: len(rows)])

    def _attend_decodes(self, layer: int, seqs: int) -> None:
        self._ops.paged_decode(
            self._query[:seqs],
            self.keys[layer],
            self.values[layer],
            self.tables,
            self._told[3],
            self._attended[:seqs],
            self._ops.splits_for(seqs, self.shape.kv_heads, self.processors),
        )

    def _attend_chunk(self, layer: int, end: int, chunk: Chunk) -> None:
        rows = slice(end - chunk.tokens, end)
        held = slice(chunk.first_slot, chunk.first_slot + chunk.done + chunk.tokens)
        self._attended[rows] = causal_attention(
            self._query[rows], self.keys[layer, held], self.values[layer, held]
        )

    def _graph(self, key: tuple[str, int, int], work: Callable[[], None]) -> torch.cuda.CUDAGraph:
        if key not in self._graphs:
            before = self._residual.clone()
            work()  # compiles, and sets up the matrix library
            self._residual.copy_(before)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                work()
            self._graphs[key] = graph
        return self._graphs[key]


def _operations(*, cuda: bool) -> Any:
    """The Triton kernels, or the same in plain PyTorch where there is nothing to compile for."""
    if cuda or os.environ.get("TRITON_INTERPRET"):
        from benchmarks.gpu import kernels  # noqa: PLC0415

        return kernels
    from benchmarks.gpu import plain  # noqa: PLC0415

    return plain


def _angles(positions: int, head_dim: int, device: torch.device) -> torch.Tensor:
    """Cosines and sines of rotary embedding: positions, 2, head_dim / 2."""
    lane = torch.arange(head_dim // 2, device=device, dtype=torch.float32)
    turns = torch.outer(
        torch.arange(positions, device=device, dtype=torch.float32),
        _ROPE_BASE ** (-2.0 * lane / head_dim),
    )
    return torch.stack((turns.cos(), turns.sin()), dim=1).contiguous()
