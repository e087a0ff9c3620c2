"""Length buckets: which requests are alike enough to be planned for as one class."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise

from router.domain.errors import WorkloadError

PROMPT_EDGES_TOKENS = (128, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
OUTPUT_EDGES_TOKENS = (32, 128, 256, 512, 1024, 2048)


@dataclass(frozen=True, slots=True)
class Buckets:
    """Inclusive upper edges of prompt and output buckets, in tokens; the last one is open.

    Steps of two to four: Mélange found that finer ones change its plans little
    (Griggs et al. 2024), and each class adds a row to the routing problem.
    """

    prompt_edges: tuple[int, ...] = PROMPT_EDGES_TOKENS
    output_edges: tuple[int, ...] = OUTPUT_EDGES_TOKENS

    def __post_init__(self) -> None:
        for name, edges in (("prompt", self.prompt_edges), ("output", self.output_edges)):
            rising = all(a < b for a, b in pairwise(edges))
            if not rising or any(edge < 1 for edge in edges):
                raise WorkloadError(f"{name} bucket edges must rise from 1 upward, not {edges}")

    def prompt_limit(self, tokens: int) -> float:
        """Upper edge of the bucket of a prompt; infinite for the last one."""
        return _limit(self.prompt_edges, tokens)

    def output_limit(self, tokens: int) -> float:
        """Upper edge of the bucket of an answer; infinite for the last one."""
        return _limit(self.output_edges, tokens)


DEFAULT_BUCKETS = Buckets()


def _limit(edges: tuple[int, ...], tokens: int) -> float:
    place = bisect_left(edges, tokens)
    return edges[place] if place < len(edges) else math.inf


def limit_label(prefix: str, limit: float) -> str:
    """``in<=1024``, or ``in<=inf`` for the open bucket."""
    return f"{prefix}<={limit:.0f}"
