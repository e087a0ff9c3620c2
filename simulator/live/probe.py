"""Asks a live engine all shapes, in rounds, until the time is up."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median

import numpy as np

from router.domain.errors import MotleyError, WorkloadError
from simulator.live.client import EngineClient, Watch
from simulator.live.observe import (
    Observation,
    decode_observation,
    mixed_observation,
    prefill_observation,
)
from simulator.live.prompts import random_prompt
from simulator.live.setup import EngineSetup
from simulator.live.shapes import LEAD_TOKENS, SHORT_TOKENS, Bounds, Pace, Shape, plan_shapes
from simulator.live.stream import Answer, AnswerError

Progress = Callable[[float, str], object]
"""Told the share done (0 to 1), and what is being done."""

_WARM_UP_TOKENS, _WARM_UP_STEPS = 128, 16
_PAUSE_STEPS = 4
"""Iterations to wait between shapes: an engine that plans ahead computes one more in vain."""
_KV_SHARE = 0.8
"""Of the cache: beyond it, preemptions would be measured."""


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """How much to ask.

    Attributes:
        seconds: about how long to go on; at least one round is made.
        max_rounds: how often each shape is asked at most.
        max_concurrency: most requests at once.
        max_prompt_tokens: longest prompt.
        seed: of the order (I5).
        salt: of the prompts. A second probe with the same ones would find them in the engine's
            prefix cache, so commands take a new one every time.
    """

    seconds: float = 120.0
    max_rounds: int = 5
    max_concurrency: int = 16
    max_prompt_tokens: int = 2_048
    seed: int = 0
    salt: int = 0

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise WorkloadError(f"the probe needs more than {self.seconds:g} seconds")
        for name in ("max_rounds", "max_concurrency", "max_prompt_tokens"):
            if getattr(self, name) < 1:
                raise WorkloadError(f"{name} must be at least 1, not {getattr(self, name)}")


@dataclass(slots=True)
class ProbeResult:
    """What came of it.

    Attributes:
        observations: in the order they were made.
        rounds: how often every shape was asked.
        shapes: how many there are.
        lost: shapes that gave nothing, and why.
        wall_s: how long it took.
    """

    observations: list[Observation] = field(default_factory=list)
    rounds: int = 0
    shapes: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    wall_s: float = 0.0


class Probe:
    """One probe of one engine.

    Args:
        client: pointed at the model (``facts.identify``).
        setup: how the engine is set up, defaults filled in.
        options: how much to ask.
    """

    def __init__(self, client: EngineClient, setup: EngineSetup, options: ProbeOptions) -> None:
        self._client, self._options = client, options
        self._engine, self._config = setup.spec.engine, setup.config
        self._order = np.random.default_rng([options.seed, 0xCA11])
        self._prompts = np.random.default_rng([options.salt, 0xCA11])

    async def run(self, progress: Progress) -> ProbeResult:
        """Warm up, plan, and ask in rounds, each in an order of its own.

        Raises:
            AnswerError: the engine does not even serve the first requests.
            MotleyError: nothing usable came back.
        """
        begin_s = self._client.clock()
        progress(0.0, "warming up")
        pace = await self._warm_up()
        shapes = plan_shapes(self._bounds(), pace)
        result = ProbeResult(shapes=len(shapes))
        round_s = 0.0
        while result.rounds < self._options.max_rounds:
            started_s = self._client.clock()
            if result.rounds and started_s - begin_s + round_s > self._options.seconds:
                break
            for k in self._order.permutation(len(shapes)).tolist():
                self._report(progress, result, begin_s, shapes[k])
                await asyncio.sleep(_PAUSE_STEPS * pace.step_s)
                await self._note(shapes[k], result)
            result.rounds += 1
            round_s = self._client.clock() - started_s
        result.wall_s = self._client.clock() - begin_s
        if not result.observations:
            reasons = ", ".join(f"{reason} ({n} times)" for reason, n in result.lost.items())
            raise MotleyError(f"the probe of {self._client.url} gave nothing: {reasons}")
        return result

    def _bounds(self) -> Bounds:
        longest = self._config.longest_job_tokens // 2
        return Bounds(
            max_prompt_tokens=min(self._options.max_prompt_tokens, longest),
            max_seqs=min(self._options.max_concurrency, self._config.max_num_seqs),
            kv_tokens=int(_KV_SHARE * self._config.kv_capacity_tokens),
            chunk_tokens=self._config.max_num_batched_tokens,
            shape_s=self._options.seconds / 12,
        )

    async def _warm_up(self) -> Pace:
        """Load what is loaded on first use, and get a first idea of the speed."""
        await self._ask(SHORT_TOKENS, _WARM_UP_STEPS)
        tokens = min(_WARM_UP_TOKENS, self._config.longest_job_tokens // 2)
        await self._ask(tokens, 1)
        long = await self._ask(tokens, 1)
        alone = await self._decode_step(1)
        together = await self._decode_step(min(4, self._config.max_num_seqs))
        return Pace(
            prefill_s=max(1e-9, long.first_s - long.sent_s - alone) / tokens,
            step_s=alone,
            seq_s=max(0.0, together - alone) / 3,
        )

    async def _decode_step(self, seqs: int) -> float:
        """Seconds per token of a few requests sent at once, their prompts included."""
        answers = await _all([self._ask(SHORT_TOKENS, _WARM_UP_STEPS) for _ in range(seqs)])
        return median((a.last_s - a.first_s) / max(1, a.output_tokens - 1) for a in answers)

    def _report(
        self, progress: Progress, result: ProbeResult, begin_s: float, shape: Shape
    ) -> None:
        spent = (self._client.clock() - begin_s) / self._options.seconds
        what = f"round {result.rounds + 1}: {shape.kind} x{shape.seqs}"
        progress(min(1.0, spent), f"{what}, prompts of {shape.prompt_tokens}")

    async def _note(self, shape: Shape, result: ProbeResult) -> None:
        """One failed request loses one shape of one round, not the probe."""
        try:
            observation = await self._observe(shape)
        except AnswerError as error:
            result.lost[error.reason] += 1
            return
        if observation is None:
            result.lost["overlap_too_short"] += 1
        else:
            result.observations.append(observation)

    async def _observe(self, shape: Shape) -> Observation | None:
        if shape.kind == "mixed":
            return await self._observe_mixed(shape)
        answers = await _all(
            [self._ask(shape.prompt_tokens, shape.output_tokens) for _ in range(shape.seqs)]
        )
        if shape.kind == "decode":
            return decode_observation(shape, answers)
        return prefill_observation(shape, answers[0], self._config.max_num_batched_tokens)

    async def _observe_mixed(self, shape: Shape) -> Observation | None:
        """Send the prompt once all others are well under way."""
        waiting_for = set(range(shape.seqs))
        under_way = asyncio.Event()

        def watch(k: int, answer: Answer) -> None:
            if answer.tokens and answer.output_tokens >= LEAD_TOKENS:
                waiting_for.discard(k)
                if not waiting_for:
                    under_way.set()

        async def inject() -> Answer:
            await under_way.wait()
            return await self._ask(shape.injected_tokens, 1)

        asks = [
            self._ask(shape.prompt_tokens, shape.output_tokens, partial(watch, k))
            for k in range(shape.seqs)
        ]
        *decoding, injected = await _all([*asks, inject()])
        return mixed_observation(shape, decoding, injected, self._engine)

    async def _ask(
        self, prompt_tokens: int, output_tokens: int, watch: Watch | None = None
    ) -> Answer:
        prompt = random_prompt(prompt_tokens, self._prompts)
        answer = await self._client.complete(prompt, output_tokens, watch)
        if answer.cached_tokens:
            raise AnswerError("cached", "the engine had this prompt in its prefix cache")
        return answer


def joined(probes: Sequence[ProbeResult]) -> ProbeResult:
    """Several probes as one."""
    return ProbeResult(
        observations=[o for probe in probes for o in probe.observations],
        rounds=sum(probe.rounds for probe in probes),
        shapes=max(probe.shapes for probe in probes),
        lost=sum((probe.lost for probe in probes), Counter()),
        wall_s=sum(probe.wall_s for probe in probes),
    )


async def _all(asks: Sequence[Coroutine[None, None, Answer]]) -> list[Answer]:
    """All answers; the first failure ends the others, too."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask) for ask in asks]
    except* AnswerError as failed:
        first = failed.exceptions[0]
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
    return [task.result() for task in tasks]
