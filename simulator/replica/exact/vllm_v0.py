"""vLLM V0 without chunked prefill, as old GPUs had to run it (vllm/core/scheduler.py, 0.6-0.10).

Prompts come first and alone: while one can be admitted, whole, the decodes stand still.
"""

from __future__ import annotations

from simulator.replica.exact.scheduler import Scheduler, Sequence, Step


class VllmV0Scheduler(Scheduler):
    """Prefill first, whole prompts, preemption of the youngest by recompute."""

    def plan(self) -> Step:
        """A batch of prompts if there is one, else one token for every running request."""
        step = Step()
        self._admit(step)
        if not step.chunks:
            self._decode(step)
        return step

    def _admit(self, step: Step) -> None:
        config, pool = self.config, self.pool
        budget = config.max_num_batched_tokens
        while self.waiting and len(self.running) < config.max_num_seqs:
            seq = self.waiting[0]
            found, hit = pool.lookup(seq.job, seq.tokens)
            tokens = seq.tokens - hit
            if tokens > budget:
                break
            if pool.missing(seq.tokens, found) > pool.free - config.watermark_blocks:
                break
            self.admit(seq, found, hit)
            step.chunks.append((seq, tokens))
            pool.grow(seq.holding, seq.tokens)
            pool.cover(seq.holding, seq.job, seq.tokens)
            budget -= tokens

    def _decode(self, step: Step) -> None:
        position = 0
        while position < len(self.running):
            seq = self.running[position]
            if not self._make_room(seq):
                break
            step.decodes.append(seq)
            self.pool.grow(seq.holding, seq.tokens)
            position += 1

    def _make_room(self, seq: Sequence) -> bool:
        """V0 asks for a free block in its turn whether or not the request needs a new one."""
        while self.pool.free < 1:
            victim = self.running[-1]
            self.lose(victim, keep=True)
            self.waiting.insert(0, victim)
            if victim is seq:
                return False
        return True
