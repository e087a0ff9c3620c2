"""SGLang, as its scheduler reads in 0.5 (managers/scheduler.py, schedule_policy.py).

A batch of prompts runs alone whenever one can be built, and the decodes stand still. Admission
reserves memory for outputs, by the client's ``max_tokens`` and a ratio that shrinks while all
goes well; when memory runs out all the same, running requests are retracted and start over.
"""

from __future__ import annotations

from simulator.replica.config import ReplicaConfig
from simulator.replica.exact.scheduler import Scheduler, Sequence, Step
from simulator.replica.sglang_rules import (
    CLIP_MAX_NEW_TOKENS,
    NewTokenRatio,
    PrefillBudget,
    longest_prefix_first,
    max_new_tokens,
)


class SglangScheduler(Scheduler):
    """Prefill first and alone, output reservation, retraction, radix cache."""

    merges_duplicates = True

    def __init__(self, config: ReplicaConfig) -> None:
        super().__init__(config)
        self._ratio = NewTokenRatio(config.schedule_conservativeness)
        self._chunked: Sequence | None = None
        # Once a newcomer did not fit nobody is tried again until a decode batch has shrunk.
        self._full = self._shrunk = False
        self._uncached: list[tuple[Sequence, int]] = []

    def plan(self) -> Step:
        """A batch of prompts if one can be built, else one token for every running request."""
        step = Step(chunks=self._prefill())
        if not step.chunks:
            self._decode(step)
        return step

    def computed(self, step: Step) -> None:
        """Prompts enter the radix cache once they are computed."""
        self._uncached = [(seq, seq.computed + tokens) for seq, tokens in step.chunks]

    def settle(self) -> None:
        """Insert computed prompts in the cache, and let go of the finished."""
        for seq, tokens in self._uncached:
            if seq.computed >= tokens:
                self.pool.cover(seq.holding, seq.job, tokens)
        self._uncached = []
        self._shrunk = self._shrunk or bool(self.leaving)
        super().settle()

    def idle(self) -> None:
        """An idle engine forgets what it learned about output lengths."""
        self._ratio.reset()

    def _prefill(self) -> list[tuple[Sequence, int]]:
        if self._chunked is not None and self._chunked.cancelled:
            self._chunked = None
        if self._chunked is None and (self._full or not self.waiting):
            return []
        if self.config.queue_order == "lpm":
            self.waiting = longest_prefix_first(self.waiting, self.pool)
        chunks: list[tuple[Sequence, int]] = []
        budget = PrefillBudget(
            self.config, self.pool.free * self.config.block_tokens, self._reserved()
        )
        if self._chunked is not None:
            seq, self._chunked = self._chunked, None
            tokens = budget.resume(seq.tokens - seq.computed, self._max_new(seq))
            self._compute(seq, tokens, chunks)
        self._admit(budget, chunks)
        self._full = self._full or budget.out_of_tokens
        return chunks

    def _admit(self, budget: PrefillBudget, chunks: list[tuple[Sequence, int]]) -> None:
        while self.waiting and not self._full:
            if len(self.running) + len(self.leaving) >= self.config.max_num_seqs:
                self._full = True
                return
            seq = self.waiting[0]
            found, hit = self.pool.lookup(seq.job, seq.tokens)
            max_new = self._max_new(seq)
            tokens = budget.admit(
                seq.tokens - hit,
                max_new - seq.generated,
                max_new,
                self.pool.revived_tokens(found, hit),
            )
            if not tokens:
                return
            self.admit(seq, found, hit)
            self._compute(seq, tokens, chunks)
            if not budget.has_room:
                return

    def _compute(self, seq: Sequence, tokens: int, chunks: list[tuple[Sequence, int]]) -> None:
        chunks.append((seq, tokens))
        self.pool.grow(seq.holding, seq.computed + tokens)
        if seq.computed + tokens < seq.tokens:
            self._chunked = seq

    def _max_new(self, seq: Sequence) -> int:
        return max_new_tokens(seq.job, self.config.longest_job_tokens)

    def _reserved(self) -> float:
        """Tokens that the running requests are expected still to need."""
        pending = sum(
            min(self._max_new(seq) - seq.generated, CLIP_MAX_NEW_TOKENS)
            for seq in self.running
            if not seq.prefilling
        )
        return self._ratio.value * pending

    def _decode(self, step: Step) -> None:
        if self._shrunk or not self.running:
            self._full = self._shrunk = False
        step.wasted = list(self.leaving)
        if not self.running:
            return
        if self._missing(self.running) > self.pool.free:
            self._retract()
            if self._missing(self.running) > self.pool.free:
                return  # the last one waits for the memory of those that just ended
        else:
            self._ratio.decay(1)
        step.decodes = list(self.running)
        for seq in step.decodes:
            self.pool.grow(seq.holding, seq.tokens)

    def _missing(self, batch: list[Sequence]) -> int:
        return sum(self.pool.blocks_for(seq.tokens) - seq.holding.blocks for seq in batch)

    def _retract(self) -> None:
        """Send the least advanced back to the queue until one more decode step fits."""
        kept = sorted(
            self.running, key=lambda seq: (seq.generated, -seq.job.prompt_tokens), reverse=True
        )
        while len(kept) > 1 and self._missing(kept) > self.pool.free:
            victim = kept.pop()
            self.lose(victim, keep=False)
            self.waiting.append(victim)
            self._full = False
        self._ratio.retracted(
            generated=sum(seq.generated for seq in kept),
            kept=len(kept),
            max_new=sum(self._max_new(seq) for seq in kept),
        )
