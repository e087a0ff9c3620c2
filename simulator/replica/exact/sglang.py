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
        batch = _PrefillBatch(self)
        if self._chunked is not None:
            self._chunked = batch.resume(self._chunked)
        while self.waiting and not self._full:
            if len(self.running) + len(self.leaving) >= self.config.max_num_seqs:
                self._full = True
            elif not batch.add(self.waiting[0]):
                break
        self._full = self._full or batch.out_of_tokens
        self._chunked = batch.truncated or self._chunked
        for seq, tokens in batch.chunks:
            self.pool.grow(seq.holding, seq.computed + tokens)
        return batch.chunks

    def reserved(self) -> float:
        """Tokens that the running requests are expected still to need."""
        pending = sum(
            min(max_new_tokens(seq.job, self.config) - seq.generated, CLIP_MAX_NEW_TOKENS)
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
            max_new=sum(max_new_tokens(seq.job, self.config) for seq in kept),
        )


class _PrefillBatch:
    """One prefill batch being filled: SGLang's ``PrefillAdder``.

    Attributes:
        chunks: requests and how many tokens of each are computed.
        truncated: the one of them whose prompt goes on in the next batch.
        out_of_tokens: whether memory, not the batch's size, was the limit.
    """

    def __init__(self, scheduler: SglangScheduler) -> None:
        config = scheduler.config
        self._scheduler, self._config, self._pool = scheduler, config, scheduler.pool
        page = self._page = config.block_tokens
        self._rem_total = scheduler.pool.free * page - scheduler.reserved()
        self._rem_input = config.max_prefill_tokens
        self._rem_chunk = config.max_num_batched_tokens
        self.chunks: list[tuple[Sequence, int]] = []
        self.truncated: Sequence | None = None
        self.out_of_tokens = False

    def resume(self, seq: Sequence) -> Sequence | None:
        """Go on with a prompt; returns it if it is still not finished."""
        limit = min(self._rem_chunk, int(self._rem_total))
        if limit <= 0:
            limit = self._rem_chunk
        remaining = seq.tokens - seq.computed
        truncated = remaining > limit
        self._charge(seq, min(remaining, limit), truncated=truncated)
        return seq if truncated else None

    def add(self, seq: Sequence) -> bool:
        """Admit a waiting request; ``False`` if the batch takes no more."""
        job, pool = seq.job, self._pool
        found = pool.match(job)
        hit = pool.matched_tokens(job, len(found), seq.tokens)
        extend = seq.tokens - hit
        output = max_new_tokens(job, self._config) - seq.generated
        revived = sum(block.size for block in found if not block.refs) * self._page
        if extend + min(output, CLIP_MAX_NEW_TOKENS) >= self._rem_total - revived:
            self.out_of_tokens = True
            return False
        if self.chunks and self._paged(extend) >= self._rem_input:
            return False
        tokens = extend
        if self._paged(extend) > self._rem_chunk:
            tokens = self._rem_chunk // self._page * self._page
            if tokens <= 0:
                return False
            self.truncated = seq
        self._rem_total -= revived
        self._scheduler.admit(seq, found, hit)
        self._charge(seq, tokens, truncated=tokens < extend)
        return self._has_room()

    def _has_room(self) -> bool:
        self.out_of_tokens = self._rem_total <= 0
        return not self.out_of_tokens and self._rem_input > 0 and self._rem_chunk > 0

    def _charge(self, seq: Sequence, tokens: int, *, truncated: bool) -> None:
        output = 0 if truncated else max_new_tokens(seq.job, self._config)
        self.chunks.append((seq, tokens))
        self._rem_total -= self._paged(tokens) + min(output, CLIP_MAX_NEW_TOKENS)
        self._rem_input -= self._paged(tokens)
        self._rem_chunk -= self._paged(tokens)

    def _paged(self, tokens: int) -> int:
        return -(-tokens // self._page) * self._page
