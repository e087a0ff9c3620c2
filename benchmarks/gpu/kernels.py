"""The four kernels that plain PyTorch lacks, in Triton: what an engine fuses, and paged attention.

Without them the small operations of a layer would take as long as its matrix products, and
decoding would read each key as often as there are query heads. With ``TRITON_INTERPRET=1`` they
run on a CPU, which is how they are tested.
"""

# ruff: noqa: N803, PLR0917 - the way of kernels

from __future__ import annotations

import torch
import triton
import triton.language as tl

from benchmarks.gpu.shapes import PAGE_TOKENS

_BLOCK_TOKENS = 64
_QUERY_ROWS = 16
"""Rows of a tensor-core tile; the query heads that share a key head fill some of them."""


def add_norm(
    delta: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, out: torch.Tensor
) -> None:
    """``residual += delta``, and its root-mean-square norm into ``out``."""
    rows, width = residual.shape
    _add_norm[rows,](
        delta, residual, weight, out, width, BLOCK=triton.next_power_of_2(width), num_warps=8
    )


def silu_mul(gate_up: torch.Tensor, out: torch.Tensor) -> None:
    """``silu(gate) * up`` of the halves of each row."""
    rows, width = out.shape
    block = min(2048, triton.next_power_of_2(width))
    _silu_mul[(rows, triton.cdiv(width, block))](gate_up, out, width, BLOCK=block)


def rope_and_store(
    qkv: torch.Tensor,
    angles: torch.Tensor,
    positions: torch.Tensor,
    slots: torch.Tensor,
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
) -> None:
    """Turn queries and keys by their positions; put keys and values at their slots of the cache.

    Args:
        qkv: rows, (heads + 2 * kv_heads) * head_dim.
        angles: positions, 2, head_dim / 2: cosines and sines.
        positions, slots: one per row.
        query: rows, heads, head_dim; written.
        keys, values: slots, kv_heads, head_dim; written.
    """
    rows, heads, head_dim = query.shape
    kv_heads = keys.shape[1]
    _rope_and_store[(rows, heads + 2 * kv_heads)](
        qkv,
        angles,
        positions,
        slots,
        query,
        keys,
        values,
        heads,
        kv_heads,
        HALF=head_dim // 2,
        num_warps=1,
    )


def splits_for(seqs: int, kv_heads: int, processors: int) -> int:
    """Into how many parts a context is cut so that a small batch fills the card."""
    wanted = triton.cdiv(4 * processors, seqs * kv_heads)
    return int(min(64, triton.next_power_of_2(max(1, wanted))))


def paged_decode(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    tables: torch.Tensor,
    lengths: torch.Tensor,
    out: torch.Tensor,
    splits: int,
) -> None:
    """Attention of one new token per sequence over its pages.

    Args:
        query, out: sequences, heads, head_dim.
        keys, values: slots, kv_heads, head_dim.
        tables: sequences, pages: where each page of ``PAGE_TOKENS`` lies.
        lengths: tokens to attend to; 0 gives zeros.
        splits: see ``splits_for``.
    """
    seqs, heads, head_dim = query.shape
    kv_heads = keys.shape[1]
    parts = torch.empty((seqs, heads, splits, head_dim), dtype=torch.float32, device=query.device)
    logs = torch.empty((seqs, heads, splits), dtype=torch.float32, device=query.device)
    _decode_part[(seqs, kv_heads, splits)](
        query,
        keys,
        values,
        tables,
        lengths,
        parts,
        logs,
        head_dim**-0.5,
        tables.stride(0),
        kv_heads,
        GROUP=heads // kv_heads,
        ROWS=_QUERY_ROWS,
        DIM=head_dim,
        PAGE=PAGE_TOKENS,
        BLOCK=_BLOCK_TOKENS,
        SPLITS=splits,
        num_warps=4,
        num_stages=3,
    )
    _decode_merge[seqs * heads,](parts, logs, out, DIM=head_dim, SPLITS=splits, num_warps=2)


@triton.jit
def _add_norm(delta, residual, weight, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    at = row * width + column
    total = tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(delta + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(residual + at, total, mask=inside)
    scale = 1.0 / tl.sqrt(tl.sum(total * total, axis=0) / width + 1e-5)
    weights = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, total * scale * weights, mask=inside)


@triton.jit
def _silu_mul(gate_up, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    gate = tl.load(gate_up + row * 2 * width + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * width + width + column, mask=inside, other=0.0)
    tl.store(out + row * width + column, gate / (1.0 + tl.exp(-gate)) * up, mask=inside)


@triton.jit
def _rope_and_store(
    qkv,
    angles,
    positions,
    slots,
    query,
    keys,
    values,
    heads,
    kv_heads,
    HALF: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    lane = tl.arange(0, HALF)
    source = qkv + (row * (heads + 2 * kv_heads) + head) * 2 * HALF
    low = tl.load(source + lane).to(tl.float32)
    high = tl.load(source + HALF + lane).to(tl.float32)
    slot = tl.load(slots + row).to(tl.int64)
    if head < heads + kv_heads:
        turn = angles + tl.load(positions + row).to(tl.int64) * 2 * HALF
        cosine, sine = tl.load(turn + lane), tl.load(turn + HALF + lane)
        low, high = low * cosine - high * sine, high * cosine + low * sine
    if head < heads:
        target = query + (row * heads + head) * 2 * HALF
    elif head < heads + kv_heads:
        target = keys + (slot * kv_heads + head - heads) * 2 * HALF
    else:
        target = values + (slot * kv_heads + head - heads - kv_heads) * 2 * HALF
    tl.store(target + lane, low)
    tl.store(target + HALF + lane, high)


@triton.jit
def _decode_part(
    query,
    keys,
    values,
    tables,
    lengths,
    parts,
    logs,
    scale,
    table_stride,
    kv_heads,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    DIM: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK: tl.constexpr,
    SPLITS: tl.constexpr,
):
    seq = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    length = tl.load(lengths + seq)
    share = tl.cdiv(tl.cdiv(length, BLOCK), SPLITS) * BLOCK
    start = split * share
    end = tl.minimum(start + share, length)
    row, lane, token = tl.arange(0, ROWS), tl.arange(0, DIM), tl.arange(0, BLOCK)
    real = row < GROUP
    head = (seq * kv_heads + kv_head) * GROUP + row
    q = tl.load(query + head[:, None] * DIM + lane[None, :], mask=real[:, None], other=0.0)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    mass = tl.zeros([ROWS], tl.float32)
    total = tl.zeros([ROWS, DIM], tl.float32)
    for first in range(start, end, BLOCK):
        at = first + token
        inside = at < end
        page = tl.load(tables + seq * table_stride + at // PAGE, mask=inside, other=0)
        place = (page.to(tl.int64) * PAGE + at % PAGE) * kv_heads + kv_head
        k = tl.load(keys + place[None, :] * DIM + lane[:, None], mask=inside[None, :], other=0.0)
        scores = tl.where(inside[None, :], tl.dot(q, k) * scale, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, axis=1))
        weight = tl.exp(scores - higher[:, None])
        kept = tl.exp(top - higher)
        v = tl.load(values + place[:, None] * DIM + lane[None, :], mask=inside[:, None], other=0.0)
        mass = mass * kept + tl.sum(weight, axis=1)
        total = total * kept[:, None] + tl.dot(weight.to(v.dtype), v)
        top = higher
    some = mass > 0.0
    at = head * SPLITS + split
    mean = total / tl.where(some, mass, 1.0)[:, None]
    tl.store(parts + at[:, None] * DIM + lane[None, :], mean, mask=real[:, None])
    log = tl.where(some, top + tl.log(tl.where(some, mass, 1.0)), float("-inf"))
    tl.store(logs + at, log, mask=real)


@triton.jit
def _decode_merge(parts, logs, out, DIM: tl.constexpr, SPLITS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    split, lane = tl.arange(0, SPLITS), tl.arange(0, DIM)
    log = tl.load(logs + row * SPLITS + split)
    top = tl.max(log, axis=0)
    weight = tl.where(log == float("-inf"), 0.0, tl.exp(log - tl.where(top > -1e30, top, 0.0)))
    part = tl.load(parts + (row * SPLITS + split)[:, None] * DIM + lane[None, :])
    mass = tl.sum(weight, axis=0)
    mean = tl.sum(part * weight[:, None], axis=0) / tl.where(mass > 0.0, mass, 1.0)
    tl.store(out + row * DIM + lane, mean)
