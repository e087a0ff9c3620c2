"""vLLM V1, as its scheduler reads in 0.33 (vllm/v1/core/sched/scheduler.py).

There are no phases: every request only catches up to its own length. Running requests come
first, in order of admission, so decodes go before new prompts because they are older; the rest
of the token budget goes to waiting prompts, in chunks.
"""

from __future__ import annotations

from simulator.replica.exact.scheduler import Scheduler, Sequence, Step


class VllmV1Scheduler(Scheduler):
    """Decode first, chunked prefill, preemption of the youngest by recompute."""

    def plan(self) -> Step:
        """The next iteration; admits nobody in one that had to preempt."""
        step = Step(wasted=[seq for seq in self.leaving if seq.stops_early])
        preempted = self.preemptions
        budget = self._run(step)
        if self.preemptions == preempted:
            self._admit(step, budget)
        return step

    def _run(self, step: Step) -> int:
        """Give every running request its tokens; returns the budget that is left."""
        budget = self.config.max_num_batched_tokens - len(step.wasted)
        position = 0
        while position < len(self.running) and budget > 0:
            seq = self.running[position]
            tokens = min(seq.tokens - seq.computed, budget)
            if not self._make_room(seq, tokens):
                break
            self._compute(step, seq, tokens)
            budget -= tokens
            position += 1
        return budget

    def _make_room(self, seq: Sequence, tokens: int) -> bool:
        """Preempt from the end of the list until ``seq`` fits; ``False`` if it went itself."""
        need = self.pool.blocks_for(seq.computed + tokens) - seq.holding.blocks
        while need > self.pool.free:
            victim = self.running[-1]
            self.lose(victim, keep=True)
            self.waiting.insert(0, victim)
            if victim is seq:
                return False
        return True

    def _admit(self, step: Step, budget: int) -> None:
        """Admit from the head of the queue; the first one that does not fit blocks the rest."""
        config, pool = self.config, self.pool
        while self.waiting and budget > 0:
            if len(self.running) + len(self.leaving) >= config.max_num_seqs:
                break
            seq = self.waiting[0]
            found, hit = pool.lookup(seq.job, seq.tokens)
            tokens = min(seq.tokens - hit, budget)
            if tokens < seq.tokens - hit and not config.chunked_prefill:
                break
            kept_free = config.watermark_blocks if self.running or self.leaving else 0
            room_for = seq.tokens if config.reserve_full_isl else hit + tokens
            if pool.missing(room_for, found) > pool.free - kept_free:
                break
            self.admit(seq, found, hit)
            self._compute(step, seq, tokens)
            budget -= tokens

    def _compute(self, step: Step, seq: Sequence, tokens: int) -> None:
        if seq.prefilling:
            step.chunks.append((seq, tokens))
        else:
            step.decodes.append(seq)
        self.pool.grow(seq.holding, seq.computed + tokens)
        # Later requests of this very iteration may share what it computes.
        self.pool.cover(seq.holding, seq.job, seq.computed + tokens)
