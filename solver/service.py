"""What one request of a class costs one engine, and how its latency grows with load.

Two operating points describe an engine serving a class: alone (batch 1) and saturated (as many
requests as KV memory, ``max_num_seqs`` and the token budget admit). Between them the mean
number of requests in the system at utilization rho is ``N(rho) = K*rho / (1 - phi*rho)``, the
curve through both points: with iterations that take ``alpha + beta*B`` and Little's law
``B = rate * E2E``, it is exact, and it fits simulated mean E2E within 1 % (2.7 % at worst) where
processor sharing is off by 18 to 29 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from router.domain.protocols import PerfModel


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """One engine as the planner sees it.

    Attributes:
        model: iteration time, learned corrections applied.
        kv_capacity_tokens: KV cache of one engine.
        max_context_tokens: longest prompt plus answer.
        max_num_seqs: most requests running at once.
        max_num_batched_tokens: token budget of one iteration.
        chunked_prefill: whether prompts share iterations with decoding.
    """

    model: PerfModel
    kv_capacity_tokens: int
    max_context_tokens: int
    max_num_seqs: int
    max_num_batched_tokens: int
    chunked_prefill: bool


@dataclass(frozen=True, slots=True)
class Service:
    """One class on one engine.

    Attributes:
        engine_s: engine-seconds per request at saturation; utilization is rate times this.
        alone_s: E2E on an empty engine.
        ttft_s, tpot_s: TTFT and TPOT on an empty engine.
        batch: requests running at saturation.
        context_tokens: KV tokens a request holds on average, cached prefix included.
    """

    engine_s: float
    alone_s: float
    ttft_s: float
    tpot_s: float
    batch: float
    context_tokens: float

    @property
    def phi(self) -> float:
        """Share of the work that does not shrink by batching, 0 to 1."""
        return max(0.0, 1.0 - self.alone_s / (self.engine_s * self.batch))

    def e2e_s(self, utilization: float) -> float:
        """Mean E2E at a utilization: ``alone_s`` at 0 and ``engine_s * batch`` at 1."""
        return self.alone_s / (1.0 - self.phi * utilization)


class _Ask(NamedTuple):
    """Tokens of one request: fresh and cached prompt, answer, and KV held on average."""

    fresh: float
    cached: float
    output: float
    context: float

    @property
    def pairs(self) -> float:
        """Causal attention work of the prefill."""
        return self.fresh * (self.cached + self.fresh / 2)


def service(
    engine: EngineFacts, prompt_tokens: float, output_tokens: float, cached_tokens: float = 0.0
) -> Service:
    """Work out the two operating points of a class on an engine."""
    output = max(1.0, output_tokens)
    context = max(1.0, prompt_tokens + output / 2)
    ask = _Ask(max(1.0, prompt_tokens - cached_tokens), cached_tokens, output, context)
    ttft_s = _prefill_s(engine, ask)
    tpot_s = engine.model.iteration_s(0, 1, context)
    alone_s = ttft_s + (output - 1) * tpot_s
    batch = _saturated_batch(engine, ask)
    # Rounding the mixed iteration can put saturation a hair above a lone request.
    engine_s = min(_saturated_s(engine, ask, batch), alone_s)
    return Service(engine_s, alone_s, ttft_s, tpot_s, batch, context)


def _prefill_s(engine: EngineFacts, ask: _Ask) -> float:
    """TTFT on an empty engine: the prompt in chunks of the token budget."""
    total_s, done, left = 0.0, ask.cached, ask.fresh
    while left > 0:
        chunk = min(left, float(engine.max_num_batched_tokens))
        total_s += engine.model.iteration_s(round(chunk), 0, 0.0, chunk * (done + chunk / 2))
        done += chunk
        left -= chunk
    return total_s


def _saturated_batch(engine: EngineFacts, ask: _Ask) -> float:
    by_memory = engine.kv_capacity_tokens / ask.context
    by_budget = float(engine.max_num_batched_tokens)
    if engine.chunked_prefill:
        # Each request in the batch brings one decode token and its share of prefill tokens.
        by_budget /= 1.0 + ask.fresh / ask.output
    return max(1.0, min(float(engine.max_num_seqs), by_memory, by_budget))


def _saturated_s(engine: EngineFacts, ask: _Ask, batch: float) -> float:
    """Engine time per request when ``batch`` like it run in steady state.

    Each lives for ``output`` iterations, so an iteration carries ``batch / output`` prefills.
    """
    prefills = batch / ask.output
    held = batch * ask.context
    if engine.chunked_prefill:
        fresh = round(prefills * ask.fresh)
        mixed_s = engine.model.iteration_s(fresh, round(batch), held, prefills * ask.pairs)
        return mixed_s / prefills
    decode_s = engine.model.iteration_s(0, round(batch), held) / prefills
    return decode_s + _prefill_s(engine, ask)
