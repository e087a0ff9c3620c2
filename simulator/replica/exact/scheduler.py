"""What the three schedulers share: jobs inside the engine, one iteration, queue and memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from simulator.replica.config import ReplicaConfig
from simulator.replica.job import Job
from simulator.replica.kv_cache import Holding, KvPool
from simulator.replica.prefix_cache import CachedBlock


class Sequence:
    """A job inside the engine.

    Attributes:
        generated: tokens of the answer so far.
        computed: tokens whose keys and values are in the KV cache.
        prefilling: admitted, and no token has come since.
        cancelled: its client left while it ran.
    """

    __slots__ = ("cancelled", "computed", "generated", "holding", "job", "prefilling")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.generated = self.computed = 0
        self.holding = Holding()
        self.prefilling = self.cancelled = False

    @property
    def tokens(self) -> int:
        """Prompt and answer so far."""
        return self.job.prompt_tokens + self.generated

    @property
    def done(self) -> bool:
        """Whether the last token is out."""
        return self.generated >= self.job.output_tokens

    @property
    def stops_early(self) -> bool:
        """Whether only its tokens tell that it ended, not its limit."""
        return self.cancelled or self.job.max_tokens != self.job.output_tokens


@dataclass(slots=True)
class Step:
    """One iteration: sequences that gain a token, prompt chunks, and slots computed in vain."""

    decodes: list[Sequence] = field(default_factory=list)
    chunks: list[tuple[Sequence, int]] = field(default_factory=list)
    wasted: list[Sequence] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.decodes or self.chunks or self.wasted)


class Scheduler:
    """What the three schedulers share: the queue, the running list and the KV pool.

    Attributes:
        waiting: jobs that a plan may admit, in order.
        running: admitted jobs, in order of admission.
        leaving: jobs that finished one iteration ago and still hold their place.
    """

    merges_duplicates = False

    def __init__(self, config: ReplicaConfig) -> None:
        self.config = config
        self.pool = KvPool(
            config.total_blocks,
            config.block_tokens,
            caching=config.prefix_caching,
            merges_duplicates=self.merges_duplicates,
        )
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.leaving: list[Sequence] = []
        self.preemptions = 0

    def plan(self) -> Step:
        """The next iteration; empty if there is nothing to do."""
        raise NotImplementedError

    def computed(self, step: Step) -> None:
        """Take note that the chunks of ``step`` are in the KV cache."""

    def idle(self) -> None:
        """Take note that the engine ran out of work."""

    def settle(self) -> None:
        """Let go of those that finished one iteration ago."""
        for seq in self.leaving:
            self.release(seq)
        self.leaving = []

    def release(self, seq: Sequence) -> None:
        """Free the memory of a finished or cancelled job; its contents stay cached."""
        if seq.done and not seq.cancelled:
            self.pool.cover_output(seq.holding, seq.job, seq.tokens - 1)
        self.pool.release(seq.holding)

    def admit(self, seq: Sequence, found: list[CachedBlock], hit_tokens: int) -> None:
        """Move the head of the queue to the running list, with what the prefix cache has."""
        self.waiting.remove(seq)
        self.running.append(seq)
        self.pool.take(seq.holding, found)
        seq.prefilling = True
        seq.computed = hit_tokens
        if self.pool.caching:
            self.pool.queried_tokens += seq.tokens
            self.pool.hit_tokens += hit_tokens
        if not seq.job.preemptions:
            seq.job.cached_tokens = hit_tokens

    def lose(self, seq: Sequence, *, keep: bool) -> None:
        """Take all memory from a running job; it will be computed again."""
        self.running.remove(seq)
        self.pool.release(seq.holding, keep=keep)
        seq.computed = 0
        seq.prefilling = False
        seq.job.preemptions += 1
        self.preemptions += 1
