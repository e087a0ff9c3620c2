"""Replays a trace against a live engine, open loop: arrivals never wait for answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from router.domain.slo import DEFAULT_SLOS
from simulator.live.client import EngineClient
from simulator.live.prompts import trace_prompt
from simulator.live.setup import EngineSetup
from simulator.live.stream import AnswerError
from simulator.results import Records, RunResult, Status
from simulator.traces.columns import Trace

Settled = Callable[[int, int], object]
"""Told (requests settled, requests)."""

_LEAD_S = 0.5
"""From here to the first arrival, so that it is not late."""


@dataclass(slots=True)
class LiveRun:
    """One replay of a trace against a live engine.

    Attributes:
        result: in the form of a simulated run, so that both are summed up alike.
        late_s: how late each request was sent; the client's fault, not the engine's.
        lengths_off: answers that were not as long as asked.
    """

    result: RunResult
    late_s: list[float] = field(default_factory=list)
    lengths_off: int = 0

    @property
    def late_p99_s(self) -> float:
        """99th percentile of the client's own lateness."""
        return float(np.percentile(self.late_s, 99.0)) if self.late_s else 0.0


class LiveReplay:
    """One replay; run once.

    Args:
        client: pointed at the model.
        trace: what arrives, fitted to the engine.
        setup: of the engine.
        salt: of the prompts; another one for every replay, or they are in the prefix cache.
        settled: told now and then how far it is.
    """

    def __init__(
        self,
        client: EngineClient,
        trace: Trace,
        setup: EngineSetup,
        *,
        salt: int,
        settled: Settled,
    ) -> None:
        self._client, self._trace, self._settled = client, trace, settled
        self._salt = salt
        self._rng = np.random.default_rng([salt, 0x11FE])
        self._records = Records(len(trace))
        self._reasons: Counter[str] = Counter()
        self._done = 0
        self._begin_s = 0.0
        self._run = LiveRun(
            RunResult(
                policy="live",
                fleet_name=setup.spec.gpu,
                rate_scale=1.0,
                seed=salt,
                trace=trace,
                backends=(setup.spec,),
                records=self._records,
                slos=dict(DEFAULT_SLOS),
                reasons=self._reasons,
            )
        )

    async def run(self) -> LiveRun:
        """Send every request at its time; returns when all have ended."""
        self._begin_s = self._client.clock() + _LEAD_S
        async with asyncio.TaskGroup() as group:
            for i, arrival_s in enumerate(self._trace.arrival_s):
                wait_s = self._begin_s + arrival_s - self._client.clock()
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                group.create_task(self._send(i, arrival_s))
        self._run.result.wall_s = self._client.clock() - self._begin_s
        return self._run

    async def _send(self, i: int, arrival_s: float) -> None:
        records, trace = self._records, self._trace
        prompt = trace_prompt(trace, i, self._rng, self._salt)
        records.backend[i], records.attempts[i] = 0, 1
        records.dispatched_s[i] = self._client.clock() - self._begin_s
        self._run.late_s.append(records.dispatched_s[i] - arrival_s)
        try:
            answer = await self._client.complete(prompt, trace.output_tokens[i])
        except AnswerError as error:
            self._reasons[error.reason] += 1
            self._settle(i, Status.FAILED, self._client.clock())
            return
        records.first_token_s[i] = answer.first_s - self._begin_s
        records.output_tokens[i] = answer.output_tokens
        records.cached_tokens[i] = answer.cached_tokens
        self._run.lengths_off += answer.output_tokens != trace.output_tokens[i]
        self._settle(i, Status.COMPLETED, answer.last_s)

    def _settle(self, i: int, status: Status, now_s: float) -> None:
        self._records.status[i] = status
        self._records.finished_s[i] = now_s - self._begin_s
        self._done += 1
        self._settled(self._done, len(self._trace))
