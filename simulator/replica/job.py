"""What goes into a replica and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EventKind = Literal["first_token", "token", "finished", "aborted"]


@dataclass(slots=True, eq=False)
class Job:
    """One request inside an engine. It carries the truth, so no policy may see it (I6).

    Attributes:
        job_id: unique among the jobs of one replica.
        prompt_tokens: prompt length, at least 1.
        output_tokens: tokens it will generate, at least 1: the truth.
        max_tokens: the client's limit; 0 means none. SGLang reserves memory by it, and an answer
            shorter than it ends by a stop token, which a scheduler that runs ahead sees late.
        prefix_hashes: chained hashes of the prompt's leading blocks. Only blocks that the prompt
            fills can be shared; a trailing partial one is ignored.
        prefix_block_tokens: tokens per hash.
        output_hashes: hashes of the blocks that the answer completes, continuing the full blocks
            of the prompt; known where a later turn of the conversation is.
        priority: carried for the caller; the schedulers here are first come, first served.
        received: whether the KV of its prompt came from another engine: all of it needs room, one
            token of it is computed again. Lost to a preemption, it is computed like any other.
        submitted_s, first_token_s, finished_s: filled in by the replica.
        cached_tokens: prompt tokens found in the prefix cache at its first admission.
        preemptions: times it lost its KV cache and was queued again.
    """

    job_id: str
    prompt_tokens: int
    output_tokens: int
    max_tokens: int = 0
    prefix_hashes: tuple[int, ...] = ()
    prefix_block_tokens: int = 0
    output_hashes: tuple[int, ...] = ()
    priority: int = 0
    received: bool = False
    submitted_s: float = 0.0
    first_token_s: float | None = None
    finished_s: float | None = None
    cached_tokens: int = 0
    preemptions: int = 0

    @property
    def shareable_blocks(self) -> int:
        """Leading hashed blocks that the prompt fills completely."""
        if not self.prefix_hashes:
            return 0
        return min(len(self.prefix_hashes), self.prompt_tokens // self.prefix_block_tokens)


@dataclass(slots=True, eq=False)
class Event:
    """Something the client of a job notices.

    ``first_token`` and ``finished`` come once per job; a job of one token has both at one time.
    ``token`` (every further token, the last included) comes only where asked for. ``aborted``
    means that the engine refused the job for good: it can never fit.
    """

    kind: EventKind
    job: Job
    at_s: float
