"""Whether the engine computes what the model is: against the same weights, written out plainly."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import torch
from torch.nn import functional

from benchmarks.gpu.attention import plain_attention
from benchmarks.gpu.llama import Chunk, Engine
from benchmarks.gpu.shapes import PAGE_TOKENS, Shape

SMALL = {
    "heads of 128": Shape("small-128", 2, 512, 8, 2, 128, 1024, 1000),
    "heads of 64": Shape("small-64", 2, 512, 8, 2, 64, 1024, 1000, tied=True),
}
SEAT_TOKENS = 2560
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


def errors(device: str, dtype: torch.dtype, shapes: dict[str, Shape] = SMALL) -> dict[str, float]:
    """Largest relative error of a last hidden state, by shape and kind of step.

    Prompts in one chunk and in several, beside decodes and alone; batches that fill a graph, that
    are padded, and that are too large for one.
    """
    found: dict[str, float] = {}
    for name, shape in shapes.items():
        engine = Engine(
            shape,
            cache_tokens=5 * SEAT_TOKENS + PAGE_TOKENS,
            max_seqs=16,
            max_tokens=2304,
            max_context=SEAT_TOKENS,
            device=device,
            dtype=dtype,
        )
        for kind, error in _steps(engine):
            label = f"{kind}, {name}"
            found[label] = float(np.maximum(error, found.get(label, 0.0)))  # NaN stays
    return found


def _steps(engine: Engine) -> Iterator[tuple[str, float]]:
    """Five requests after each other, each decoding beside those before it."""
    rng = random.Random(0)
    texts: list[list[int]] = []
    for prompt_tokens in (5, 40, 130, 600, 2200):
        prompt = [rng.randrange(engine.shape.vocab) for _ in range(prompt_tokens)]
        first_slot = SEAT_TOKENS * len(texts)
        first = min(33, prompt_tokens)
        yield "prompt", _beside(engine, texts, prompt, Chunk(first_slot, 0, first))
        if prompt_tokens > first:
            rest = Chunk(first_slot, first, prompt_tokens - first)
            yield "rest of a prompt", _beside(engine, texts, prompt, rest)
        texts.append(prompt)
        _seat(engine, len(texts) - 1, first_slot)
        for _ in range(2):
            yield "decode", _beside(engine, texts, [], None)


def _seat(engine: Engine, row: int, first_slot: int) -> None:
    pages = torch.arange(SEAT_TOKENS // PAGE_TOKENS, dtype=torch.int32)
    engine.tables[row] = (pages + first_slot // PAGE_TOKENS).to(engine.device)


def _beside(
    engine: Engine, texts: list[list[int]], prompt: list[int], chunk: Chunk | None
) -> float:
    """One step: a token more of every text, and a chunk; the texts grow by random tokens."""
    for k, text in enumerate(texts):
        text.append((7 * len(text) + k) % engine.shape.vocab)
    tokens = [text[-1] for text in texts]
    positions = [len(text) - 1 for text in texts]
    slots = [SEAT_TOKENS * k + position for k, position in enumerate(positions)]
    whole = list(texts)
    if chunk is not None:
        now = range(chunk.done, chunk.done + chunk.tokens)
        tokens += [prompt[k] for k in now]
        positions += list(now)
        slots += [chunk.first_slot + k for k in now]
        whole.append(prompt[: chunk.done + chunk.tokens])
    rows = [np.array(one, dtype=np.int32) for one in (tokens, positions, slots)]
    engine.step(*rows, len(texts), () if chunk is None else (chunk,))
    wanted = torch.stack([reference(engine, text) for text in whole])
    found = engine.last[: len(whole)].float()
    return float(((found - wanted).norm(dim=1) / wanted.norm(dim=1)).max())


def reference(engine: Engine, text: list[int]) -> torch.Tensor:
    """Last hidden state of a text, in float32, without a cache."""
    s = engine.shape
    x = engine.embedding[torch.tensor(text, device=engine.device)].float()
    for layer in range(s.layers):
        qkv = functional.linear(_norm(engine, 2 * layer, x), engine.qkv[layer].float())
        q, k, v = qkv.unflatten(1, (-1, s.head_dim)).split((s.heads, s.kv_heads, s.kv_heads), dim=1)
        attended = plain_attention(_turned(q), _turned(k), v).flatten(1)
        x = x + functional.linear(attended, engine.out[layer].float())
        normed = _norm(engine, 2 * layer + 1, x)
        gate, up = functional.linear(normed, engine.gate_up[layer].float()).chunk(2, dim=1)
        x = x + functional.linear(functional.silu(gate) * up, engine.down[layer].float())
    return _norm(engine, 2 * s.layers, x)[-1]


def _norm(engine: Engine, which: int, x: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(x, x.shape[-1:], engine.norms[which].float(), 1e-5)


def _turned(x: torch.Tensor) -> torch.Tensor:
    """Rotary embedding as complex numbers: another way than the kernel's."""
    half = x.shape[-1] // 2
    lane = torch.arange(half, device=x.device, dtype=torch.float32)
    angle = torch.outer(torch.arange(len(x), device=x.device), 500_000.0 ** (-lane / half))
    pairs = torch.complex(x[..., :half], x[..., half:])
    turned = pairs * torch.polar(torch.ones_like(angle), angle)[:, None]
    return torch.cat((turned.real, turned.imag), dim=-1)
