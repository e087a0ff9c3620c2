"""Writes a Llama with random weights: ``python random_llama.py FOLDER [SIZE] [TOKENIZER]``.

Runs in an engine's own environment (it needs torch, transformers and tokenizers, which Motley
does not).

Sizes: ``tiny`` (0.4 million parameters, a token in a few milliseconds), ``small`` (36 million: an
iteration is mostly arithmetic, and still fits one CPU core) and ``crash`` (heads of 16, which
vLLM accepts at start and dies of at the first request).

Tokenizers: ``words`` makes every token a word, so every token is a chunk of its own; ``bytes`` is
byte-level BPE, in which a token may be half a character, so an engine sends fewer chunks than
tokens, as with every real model.
"""

from __future__ import annotations

import string
import sys
from itertools import product

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import library as torch_library

VOCABULARY = 4_096
PAD, BEGIN, END, USER, ASSISTANT, SYSTEM, TOOL = SPECIAL = (
    "<pad>",
    "<s>",
    "</s>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|tool|>",
)
TEMPLATE = (
    f"{BEGIN}{{% for m in messages %}}{{{{ '<|' + m['role'] + '|> ' + m['content'] + ' {END} ' }}}}"
    f"{{% endfor %}}{{% if add_generation_prompt %}}{{{{ '{ASSISTANT} ' }}}}{{% endif %}}"
)
SIZES = {
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
    "small": {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8},
    "crash": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
}


def words() -> Tokenizer:
    """``w1 w2 w3``: whole words, one token each."""
    vocabulary = {w: i for i, w in enumerate(_filled(SPECIAL))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=PAD))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="")
    return tokenizer


def bytes_() -> Tokenizer:
    """All bytes and all pairs of small letters, with and without a blank before them."""
    letters = string.ascii_lowercase
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [*product(letters, letters), *product(["Ġ"], letters)]
    merges += [("Ġ" + a, b) for a, b in product(letters, letters)]
    known = [*SPECIAL, *alphabet, *("".join(pair) for pair in merges)]
    vocabulary = {w: i for i, w in enumerate(_filled(known))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _filled(known: list[str] | tuple[str, ...]) -> list[str]:
    """A word for every number the model can say."""
    return [*known, *(f"w{i}" for i in range(VOCABULARY - len(known)))]


def write(folder: str, size: str = "small", tokenizer: str = "words") -> None:
    """Weights, tokenizer and chat template."""
    # SGLang's torchvision is made for CUDA: without these, importing it fails (``sglang_cpu.py``).
    operators = torch_library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from transformers import (
        GenerationConfig,
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
    )

    fast = PreTrainedTokenizerFast(
        tokenizer_object=words() if tokenizer == "words" else bytes_(),
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT, SYSTEM, TOOL],
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    shape = SIZES[size]
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            intermediate_size=4 * shape["hidden_size"],
            num_key_value_heads=shape["num_attention_heads"] // 2,
            max_position_embeddings=4_096,
            tie_word_embeddings=False,
            **shape,
            **ends,
        )
    ).to(torch.bfloat16)
    model.generation_config = GenerationConfig(**ends)
    model.save_pretrained(folder)


if __name__ == "__main__":
    write(*sys.argv[1:])
