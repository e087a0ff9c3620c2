"""Writes a small Llama with random weights: ``python random_llama.py FOLDER``.

Runs in vLLM's own environment (it needs torch, transformers and tokenizers, which Motley does
not). 36 million parameters: large enough that an iteration is mostly arithmetic, small enough for
one CPU core. One word a token, so that every token is a chunk of its own.
"""

from __future__ import annotations

import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 4_096
SPECIAL = ("<pad>", "<s>", "</s>")


def write(folder: str) -> None:
    words = (*SPECIAL, *(f"w{i}" for i in range(VOCABULARY - len(SPECIAL))))
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=512,
            intermediate_size=2_048,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=4,
            max_position_embeddings=4_096,
            tie_word_embeddings=False,
            **ends,
        )
    ).to(torch.bfloat16)
    model.generation_config = GenerationConfig(**ends)
    model.save_pretrained(folder)


if __name__ == "__main__":
    write(sys.argv[1])
