"""Seconds per iteration, from the truth model."""

from __future__ import annotations

from bisect import bisect_left

from router.domain.protocols import PerfModel

_PROBE_TOKENS = 1 << 20


class IterationTimes:
    """The truth model of one replica, with the CUDA-graph staircase laid over pure decode.

    Args:
        truth: affine in context at a fixed batch, as every ``PerfModel`` is.
        graph_sizes: captured decode batch sizes; empty for none.

    Attributes:
        base, slope: by batch size, seconds of a pure decode iteration without its context and
            per token of context; ``extend`` them before reading.
        mixed_s: seconds of an iteration with prompt chunks, as ``PerfModel.iteration_s``.
    """

    __slots__ = ("_graph_sizes", "_truth", "base", "mixed_s", "slope")

    def __init__(self, truth: PerfModel, graph_sizes: tuple[int, ...] = ()) -> None:
        self._truth = truth
        self._graph_sizes = sorted(graph_sizes)
        self.base: list[float] = []
        self.slope: list[float] = []
        self.mixed_s = truth.iteration_s

    def padded(self, decode_seqs: int) -> int:
        """Batch size that a pure decode iteration runs at."""
        at = bisect_left(self._graph_sizes, decode_seqs)
        return self._graph_sizes[at] if at < len(self._graph_sizes) else decode_seqs

    def decode_s(self, decode_seqs: int, context_tokens: int) -> float:
        """Seconds of one pure decode iteration."""
        return self._truth.iteration_s(0, self.padded(decode_seqs), context_tokens)

    def extend(self, decode_seqs: int) -> None:
        """Make ``base`` and ``slope`` reach up to a batch of ``decode_seqs``."""
        for seqs in range(len(self.base), decode_seqs + 1):
            base = self.decode_s(seqs, 0)
            self.base.append(base)
            self.slope.append((self.decode_s(seqs, _PROBE_TOKENS) - base) / _PROBE_TOKENS)
