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
    """

    __slots__ = ("_base", "_graph_sizes", "_slope", "_truth", "mixed_s")

    def __init__(self, truth: PerfModel, graph_sizes: tuple[int, ...] = ()) -> None:
        self._truth = truth
        self._graph_sizes = sorted(graph_sizes)
        self._base: list[float] = []
        self._slope: list[float] = []
        self.mixed_s = truth.iteration_s

    def padded(self, decode_seqs: int) -> int:
        """Batch size that a pure decode iteration runs at."""
        at = bisect_left(self._graph_sizes, decode_seqs)
        return self._graph_sizes[at] if at < len(self._graph_sizes) else decode_seqs

    def decode_s(self, decode_seqs: int, context_tokens: int) -> float:
        """Seconds of one pure decode iteration."""
        return self._truth.iteration_s(0, self.padded(decode_seqs), context_tokens)

    def affine(self, decode_seqs: int) -> tuple[float, float]:
        """Base and slope (seconds per context token) of a pure decode iteration."""
        if decode_seqs >= len(self._base):
            self._extend(decode_seqs)
        return self._base[decode_seqs], self._slope[decode_seqs]

    def _extend(self, decode_seqs: int) -> None:
        for seqs in range(len(self._base), decode_seqs + 1):
            base = self.decode_s(seqs, 0)
            self._base.append(base)
            self._slope.append((self.decode_s(seqs, _PROBE_TOKENS) - base) / _PROBE_TOKENS)
