"""Attention of a prompt, and the same written out to check by."""

from __future__ import annotations

import torch


def causal_attention(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Each query attends to the keys up to its own; the last query's is the last key.

    Args:
        query: tokens, heads, head_dim.
        keys, values: as many tokens or more, kv_heads, head_dim.
    """
    if query.is_cuda:
        # What scaled_dot_product_attention calls, without its costs on the host.
        return torch.ops.aten._flash_attention_forward(
            query[None],
            keys[None],
            values[None],
            None,
            None,
            len(query),
            len(keys),
            0.0,
            True,
            False,
        )[0][0]
    return plain_attention(query, keys, values)


def plain_attention(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The same, written out: to check by."""
    shared = query.shape[1] // keys.shape[1]
    k = keys.repeat_interleave(shared, dim=1).float()
    v = values.repeat_interleave(shared, dim=1).float()
    scores = torch.einsum("qhd,khd->hqk", query.float(), k) * query.shape[-1] ** -0.5
    hidden = torch.ones(scores.shape[1:], dtype=torch.bool, device=query.device)
    hidden = hidden.triu(len(keys) - len(query) + 1)
    weights = scores.masked_fill(hidden, float("-inf")).softmax(dim=-1)
    return torch.einsum("hqk,khd->qhd", weights, v).to(query.dtype)
