"""How long a prompt is, before any engine has counted it.

A tokenizer per model would cost more than the rest of the request. Bytes divided by a learned
ratio are within some 20% for one model's usual traffic, and the engine's own count corrects the
ratio with every answer that carries ``usage``.
"""

from __future__ import annotations

from collections.abc import Mapping

PRIOR_BYTES_PER_TOKEN = 4.4
"""English chat JSON with Llama's tokenizer: 4.2 bytes a token, plus quotes and keys."""
PRIOR_TOKENS = 2_000.0
MEMORY = 0.995
SMALLEST, LARGEST = 1.0, 16.0
OVERHEAD_BYTES = 80
"""Keys and braces of the smallest chat request: bytes that are no prompt."""


class PromptSizer:
    """Learns bytes per token, model by model.

    The ratio is a quotient of decayed sums, so that long prompts count for what they weigh.
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}

    def estimate(self, model: str, prompt_bytes: int) -> int:
        """Tokens to expect of a request body of that size; at least 1."""
        size_bytes = prompt_bytes - OVERHEAD_BYTES
        total_bytes, total_tokens = self._sums.get(model, _PRIOR)
        return round(size_bytes * total_tokens / total_bytes) or 1 if size_bytes > 0 else 1

    def tokens_in(self, model: str, size_bytes: int) -> int:
        """Tokens in so many bytes of prompt text; at least 1."""
        total_bytes, total_tokens = self._sums.get(model, _PRIOR)
        return round(size_bytes * total_tokens / total_bytes) or 1 if size_bytes > 0 else 1

    def learn(self, model: str, prompt_bytes: int, prompt_tokens: int) -> None:
        """Take note of an engine's count."""
        if prompt_tokens <= 0:
            return
        total_bytes, total_tokens = self._sums.get(model, _PRIOR)
        size = max(prompt_bytes - OVERHEAD_BYTES, SMALLEST * prompt_tokens)
        size = min(size, LARGEST * prompt_tokens)
        self._sums[model] = (MEMORY * total_bytes + size, MEMORY * total_tokens + prompt_tokens)

    def sums(self) -> dict[str, tuple[float, float]]:
        """By model what was learned, as bytes and tokens that count: to be kept over a restart."""
        return dict(self._sums)

    def restore(self, sums: Mapping[str, tuple[float, float]]) -> int:
        """Know again the ratios of models of which nothing was learned yet; how many these are."""
        new = {model: known for model, known in sums.items() if model not in self._sums}
        self._sums |= new
        return len(new)

    def bytes_per_token(self, model: str) -> float:
        """The current ratio."""
        total_bytes, total_tokens = self._sums.get(model, _PRIOR)
        return total_bytes / total_tokens


_PRIOR = (PRIOR_BYTES_PER_TOKEN * PRIOR_TOKENS, PRIOR_TOKENS)
