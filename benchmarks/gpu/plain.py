"""The operations of ``kernels`` in plain PyTorch: what a machine without a GPU runs."""

# ruff: noqa: PLR0917 - the way of kernels

from __future__ import annotations

import torch
from torch.nn import functional

from benchmarks.gpu.attention import plain_attention
from benchmarks.gpu.shapes import PAGE_TOKENS


def add_norm(
    delta: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, out: torch.Tensor
) -> None:
    """See ``kernels.add_norm``."""
    residual += delta
    out.copy_(functional.rms_norm(residual, residual.shape[-1:], weight, 1e-5))


def silu_mul(gate_up: torch.Tensor, out: torch.Tensor) -> None:
    """See ``kernels.silu_mul``."""
    gate, up = gate_up.chunk(2, dim=1)
    torch.mul(functional.silu(gate), up, out=out)


def rope_and_store(
    qkv: torch.Tensor,
    angles: torch.Tensor,
    positions: torch.Tensor,
    slots: torch.Tensor,
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
) -> None:
    """See ``kernels.rope_and_store``."""
    heads, kv_heads = query.shape[1], keys.shape[1]
    parts = qkv.unflatten(1, (-1, query.shape[2])).split((heads, kv_heads, kv_heads), dim=1)
    cosine, sine = angles[positions.long()].unsqueeze(2).unbind(dim=1)
    query.copy_(_turned(parts[0], cosine, sine))
    keys[slots.long()] = _turned(parts[1], cosine, sine)
    values[slots.long()] = parts[2]


def _turned(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    low, high = x.chunk(2, dim=-1)
    return torch.cat((low * cosine - high * sine, high * cosine + low * sine), dim=-1)


def splits_for(seqs: int, kv_heads: int, processors: int) -> int:  # noqa: ARG001
    """Nothing is cut."""
    return 1


def paged_decode(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    tables: torch.Tensor,
    lengths: torch.Tensor,
    out: torch.Tensor,
    splits: int,  # noqa: ARG001
) -> None:
    """See ``kernels.paged_decode``."""
    inside = torch.arange(PAGE_TOKENS)
    out.zero_()
    for row, length in enumerate(lengths.tolist()):
        if length:
            pages = tables[row, : -(-length // PAGE_TOKENS), None].long()
            slots = (pages * PAGE_TOKENS + inside).flatten()[:length]
            one = slice(row, row + 1)
            out[one] = plain_attention(query[one], keys[slots], values[slots])
