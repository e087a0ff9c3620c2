"""From what engines and clients call a model to a name in the catalogue, or a description."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from router.cli.init import catalogue_name
from router.perf.catalog import default_catalog

FALLBACK = "llama-3.1-8b"
_SIZE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)[bB](?![a-zA-Z])")
_FORMATS = {"awq": "awq", "gptq": "gptq", "fp8": "fp8", "w8a8": "int8", "int8": "int8"}


@dataclass(frozen=True, slots=True)
class Named:
    """A model as the file names it.

    Attributes:
        model: its name in the catalogue, or its own.
        described: a ``models`` entry for one that the catalogue does not hold.
        quantization: as far as the name tells.
        doubt: what the reader should look at; empty where it is sure.
    """

    model: str
    described: dict[str, Any] = field(default_factory=dict)
    quantization: str = ""
    doubt: str = ""


def named(served: str) -> Named:
    """Find a model in the catalogue, or describe it like the one nearest in size."""
    if not served:
        return Named(
            FALLBACK, doubt=f"the source names no model: {FALLBACK} is a guess (--model NAME)"
        )
    quantization = _quantization(served)
    model, sure = catalogue_name(served)
    if sure:
        return Named(model, quantization=quantization)
    own = re.sub(r"[^A-Za-z0-9._-]+", "-", served.rsplit("/", 1)[-1]).strip("-").lower() or FALLBACK
    like, size = _like(own)
    figures = default_catalog().model(like)
    described = {
        "parameters": int(size * 1e9) if size else figures.parameters,
        "layers": figures.layers,
        "hidden_size": figures.hidden_size,
        "kv_heads": figures.kv_heads,
        "heads": figures.heads,
        "head_dim": figures.head_dim,
        "max_context_tokens": figures.max_context_tokens,
    }
    doubt = (
        f"{served} is not in the catalogue: models.{own} has the shape of {like}; put the figures "
        "of its config.json there, or measure it with 'motley calibrate'"
    )
    return Named(own, described, quantization, doubt)


def _quantization(served: str) -> str:
    words = re.split(r"[^a-z0-9]+", served.lower())
    return next((form for word, form in _FORMATS.items() if word in words), "")


def _like(name: str) -> tuple[str, float]:
    """The catalogue's model that is nearest in parameters, and how many the name tells of (1e9)."""
    told = _SIZE.search(name)
    if told is None:
        return FALLBACK, 0.0
    size = float(told[1])
    models = default_catalog().models
    return min(models, key=lambda m: abs(models[m].parameters / 1e9 - size)), size
