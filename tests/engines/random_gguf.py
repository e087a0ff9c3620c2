"""Writes a Llama with random weights for llama.cpp: ``python random_gguf.py FILE [SIZE]``.

Runs in the environment of ``llama-server`` (it needs gguf and numpy). Sizes are those of
``random_llama.py``. What it says is plain ASCII: bytes at random are no UTF-8, and an answer that
is none ends in an error of ``llama-server``.
"""

from __future__ import annotations

import string
import sys
from itertools import product

import gguf
import numpy as np

SPECIAL = ("<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>")
TEMPLATE = (
    "<s>{% for m in messages %}{{ '<|' + m['role'] + '|> ' + m['content'] + '</s> ' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|> ' }}{% endif %}"
)
SIZES = {"tiny": (64, 2, 2), "small": (512, 8, 8)}
"""Width, layers, heads."""


def tokens() -> tuple[list[str], list[str]]:
    """Those of byte-level BPE, and its merges: ASCII, and pairs of small letters."""
    letters = string.ascii_lowercase
    blank, newline = "Ġ", "Ċ"
    known = [*SPECIAL, *(chr(n) for n in range(33, 127)), blank, newline]
    merges = [*product(letters, letters), *product([blank], letters)]
    merges += [(blank + one, other) for one, other in product(letters, letters)]
    return known + ["".join(pair) for pair in merges], [" ".join(pair) for pair in merges]


def write(file: str, size: str = "small") -> None:
    """Tokenizer, chat template and weights."""
    width, layers, heads = SIZES[size]
    known, merges = tokens()
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(4_096)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(4 * width)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads // 2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_vocab_size(len(known))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(known)
    kinds = [gguf.TokenType.CONTROL if t in SPECIAL else gguf.TokenType.NORMAL for t in known]
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template(TEMPLATE)
    for name, shape in weights(len(known), width, layers):
        drawn = np.random.default_rng(len(name)).standard_normal(shape) * 0.02
        norm = name.endswith("norm.weight")
        writer.add_tensor(name, (np.ones(shape) if norm else drawn).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def weights(words: int, width: int, layers: int) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes."""
    found: list[tuple[str, tuple[int, ...]]] = [
        ("token_embd.weight", (words, width)),
        ("output_norm.weight", (width,)),
        ("output.weight", (words, width)),
    ]
    for n in range(layers):
        parts: dict[str, tuple[int, ...]] = {
            "attn_norm": (width,),
            "ffn_norm": (width,),
            "attn_q": (width, width),
            "attn_k": (width // 2, width),
            "attn_v": (width // 2, width),
            "attn_output": (width, width),
            "ffn_gate": (4 * width, width),
            "ffn_up": (4 * width, width),
            "ffn_down": (width, 4 * width),
        }
        found += [(f"blk.{n}.{part}.weight", shape) for part, shape in parts.items()]
    return found


if __name__ == "__main__":
    write(*sys.argv[1:])
