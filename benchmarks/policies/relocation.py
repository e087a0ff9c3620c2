"""Would it pay to move a running answer from a slow card to a fast one? An experiment.

::

    python -m benchmarks.policies.relocation             (about 5 CPU-minutes)

A gateway can go on with an answer elsewhere (``reliability.continuation``): stop it here, send the
prompt and the text so far there. Done on purpose, it is the task assignment by guessing size of
Harchol-Balter (TAGS, 2002) and the live migration of Llumnix (OSDI 2024) with unchanged engines.
Every ``TICK_S`` seconds each answer under way is held against every faster backend::

    cost  = mean over the remaining length of ((age + wait + remaining * TPOT) / E98) ** POWER
            + POWER * (theirs / E98) ** (POWER - 1) * crowding * inflicted / E98

for staying (nothing to wait for; what it inflicts is what those beside it would be spared) and for
going (wait: the prefill of all of it there), with the terms and beliefs of ``policies/motley.py``.
The remaining length is that of the log-normal forecast, given the tokens counted so far. Who gains
``GAIN`` times and a second, fits, and is within the budget of extra prefill, is moved, once. With
``true`` the mover is told what remains: the bound of any prediction.

Nothing of this is in the gateway, for the table says why; so what reaches into replay and
dispatcher is all here.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from benchmarks.policies.scenarios import SLO_MIX, Scenario, config_of, trace_of
from benchmarks.policies.slo_mix import JUDGED
from router.dispatcher import Dispatcher
from router.domain.request import LengthForecast
from router.fleet_state.backend import BackendState
from router.fleet_state.flight import Flight
from router.perf.estimate import prefill_backlog_s, ttft_s
from router.policies.motley import Motley
from simulator.options import ReplayOptions
from simulator.processes import EngineProcess
from simulator.replay import Replay
from simulator.replica.job import Job
from simulator.results import Status
from simulator.rows import Rows
from simulator.run import build_replay
from simulator.traces.columns import Trace

TICK_S = 0.25
MOST_A_TICK = 4
POWER = 3.0
GAIN = 1.5
LEAST_GAIN_S = 1.0
LEAST_TOKENS = 32
EXTRA = 0.1
BACKLOG_S = 0.3
KV_LIMIT = 0.85
POINTS = (-1.2816, -0.5244, 0.0, 0.5244, 1.2816)
WORKLOADS = ("azure-conv", "azure-code", SLO_MIX, "poisson-heavy")
FLEETS = ("balanced", "t4-heavy")
LOADS = (0.5, 0.75, 0.9)
SEEDS = (0, 1)
REQUESTS = 5_000


@dataclass(frozen=True, slots=True)
class Left:
    """What remains of an answer: its mean, and the standard deviation of its logarithm."""

    mean: float
    sigma: float = 0.0


def left_of(forecast: LengthForecast, so_far: int, limit: int | None) -> Left:
    """Given that it is longer than ``so_far``, and ends at its limit."""
    rest = forecast.beyond(so_far)
    mean = rest.mean_tokens
    sigma = math.sqrt(math.log(rest.square_tokens / mean**2))
    return Left(mean if limit is None else max(1.0, min(mean, limit - so_far)), sigma)


class CarriedRows(Rows):
    """Jobs of requests that were moved are what is left of them."""

    carried: dict[int, int]

    def job(self, i: int, longest_tokens: int) -> Job:
        job = super().job(i, longest_tokens)
        tokens = self.carried.get(i, 0)
        job.prompt_tokens += tokens
        job.output_tokens -= tokens
        job.max_tokens -= tokens if job.max_tokens else 0
        return job


@dataclass(frozen=True, slots=True)
class Move:
    flight: Flight
    to: BackendState
    tokens: int
    gain: float


class Mover:
    """Looks at all answers under way, and moves those that should be elsewhere."""

    def __init__(self, replay: Replay, trace: Trace, *, true: bool) -> None:
        self._replay, self._trace, self._true = replay, trace, true
        self._router: Dispatcher = replay.dispatchers[0]
        self._policy: Motley = self._router.policy
        self._first_s: dict[int, float] = {}
        self._asked = list(accumulate(trace.input_tokens))
        self._extra = 0
        self.carried: dict[int, int] = {}
        replay._rows.__class__, replay._rows.carried = CarriedRows, self.carried
        replay._clock.every(TICK_S, self._tick)

    def finish(self) -> None:
        """The client's first token came from the first backend."""
        for i, first_s in self._first_s.items():
            self._replay.records.first_token_s[i] = first_s

    def _tick(self, now: float) -> None:
        for _ in range(MOST_A_TICK):
            flights = [f for f in self._router.flights if f.first_token_s is not None]
            moves = [m for f in flights for m in self._moves(f, now)]
            if not moves:
                break
            self._move(max(moves, key=lambda m: m.gain), now)
        self._replay._look(now)

    def _moves(self, flight: Flight, now: float) -> Iterator[Move]:
        request, source = flight.request, flight.backend
        i, here_s = int(request.request_id), self._step_s(source, now)
        if i in self.carried:
            return
        tokens = tokens_so_far(self._engine(i), request.request_id, now)
        if tokens < LEAST_TOKENS:
            return
        left = left_of(request.forecast, tokens, request.max_tokens)
        if self._true:
            left = Left(max(1.0, self._trace.output_tokens[i] - tokens))
        if left.mean * here_s < LEAST_GAIN_S:
            return
        held = request.prompt_tokens + tokens
        stay = self._cost(flight, source, held, left, 0.0, now)
        for view in self._router.state.backends:
            faster_s = here_s - self._step_s(view, now, 1, held)
            if faster_s * left.mean < LEAST_GAIN_S or not self._fits(view, held, left, now):
                continue
            wait_s = ttft_s(view, held, now)
            if view is source or faster_s * left.mean - wait_s < LEAST_GAIN_S:
                continue
            go = self._cost(flight, view, held, left, wait_s, now)
            if go * GAIN < stay:
                yield Move(flight, view, tokens, (stay - go) / held)

    def _fits(self, view: BackendState, held: int, left: Left, now: float) -> bool:
        arrived = self._asked[self._replay._next - 1]
        room = KV_LIMIT * view.kv_capacity_tokens - view.context_tokens
        return (
            view.usable
            and self._extra + held <= EXTRA * arrived
            and view.in_flight < view.max_num_seqs
            and (room > held + left.mean or not view.in_flight)
            and (not view.prefilling or prefill_backlog_s(view, now) <= BACKLOG_S)
        )

    def _cost(  # noqa: PLR0917
        self, flight: Flight, view: BackendState, held: int, left: Left, wait_s: float, now: float
    ) -> float:
        stays, cost, e98_s = view is flight.backend, view.cost, self._policy._scale.e2e_s
        others = view.in_flight - stays
        tau_s = self._step_s(view, now, not stays, 0 if stays else held)
        begun_s = now - flight.request.arrival_s + wait_s
        shift = left.sigma**2 / 2
        ends = (begun_s + left.mean * math.exp(left.sigma * z - shift) * tau_s for z in POINTS)
        own = sum((end_s / e98_s) ** POWER for end_s in ends) / len(POINTS)
        if not others:
            return own
        pending = max(view.pending_output_tokens - stays * flight.residual_tokens, 0.0)
        slower_s = cost.seq_s + cost.context_s * (held + 0.5 * left.mean)
        inflicted_s = slower_s * min(pending, others * left.mean)
        inflicted_s += 0.0 if stays else cost.prompt_s(held) * view.decoding
        theirs_s = max(now - view.mean_arrival_s, 0.0) + pending / others * tau_s
        crowding = tau_s / (cost.step_s + cost.seq_s)
        return own + POWER * (theirs_s / e98_s) ** (POWER - 1) * crowding * inflicted_s / e98_s

    def _step_s(
        self, view: BackendState, now: float, extra_seqs: int = 0, extra_tokens: int = 0
    ) -> float:
        """One iteration as believed, prefills in between included."""
        cost, lane = view.cost, self._policy._book.lane(view)
        seqs = view.in_flight + extra_seqs
        step_s = cost.step_s + cost.seq_s * seqs
        step_s += cost.context_s * (view.context_tokens + extra_tokens)
        return step_s / (1.0 - lane.prefill_share(now))

    def _engine(self, i: int) -> EngineProcess:
        return self._replay.engines[self._replay.records.backend[i]]

    def _move(self, move: Move, now: float) -> None:
        """Stop it here, go on there; the client waits for the prefill there."""
        router, replay, request = self._router, self._replay, move.flight.request
        i = int(request.request_id)
        self._first_s[i] = replay.records.first_token_s[i]
        self._engine(i).cancel(request.request_id, now)
        self.carried[i] = move.tokens
        self._extra += request.prompt_tokens + move.tokens
        router._spare(router._land(request.request_id, now))
        request.carry(move.tokens, move.flight.first_token_s)
        router._send(request, move.to, move.flight.tried, now)
        replay._send(i, replay._engine_of[move.to.spec.name], now)


def tokens_so_far(engine: EngineProcess, job_id: str, now: float) -> int:
    """What the gateway has counted of an answer by now, as the fast replica knows it."""
    replica, local = engine.replica, engine._local(now)
    replica._run_to(local)
    member = replica._members.get(job_id)
    if member is None or not member.entered:
        return 0
    steps = replica._step_at(local) - 1 if replica._decodes else 0
    return member.job.output_tokens - (member.ends_at - replica._batch.iteration - steps)


def played(scenario: Scenario, seed: int, moves: str) -> tuple[list[float], float]:
    """P99 TTFT; P99, P99.9 and mean E2E of one replay; and the share of requests moved."""
    trace, _ = trace_of(scenario, config_of(scenario.fleet, "least-request"), seed)
    config = config_of(scenario.fleet, "motley", classes=scenario.workload == SLO_MIX)
    replay = build_replay(trace, config, "motley", ReplayOptions(seed=seed, model_error=0.25))
    mover = Mover(replay, trace, true=moves == "true") if moves else None
    replay.run()
    if mover is not None:
        mover.finish()
    records = replay.records
    judged = np.array(records.status) == Status.COMPLETED
    if scenario.workload == SLO_MIX:
        judged &= np.array([trace.slo_class[i] == JUDGED for i in range(len(trace))])
    ttft = (np.array(records.first_token_s) - trace.arrivals())[judged]
    e2e = (np.array(records.finished_s) - trace.arrivals())[judged]
    figures = [np.percentile(ttft, 99), *np.percentile(e2e, (99, 99.9)), e2e.mean()]
    return [float(f) for f in figures], len(mover.carried) / len(trace) if mover else 0.0


def table(workloads: Sequence[str], requests: int) -> Iterator[str]:
    """Ratios with over without, geometric mean over loads and seeds, extremes of P99 E2E."""
    yield "| trace, fleet | remaining | moved | TTFT P99 | E2E P99 | of it | E2E P99.9 | mean |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|"
    for workload in workloads:
        for fleet in FLEETS:
            base = Scenario(workload, fleet, 0.0, requests)
            cells = [(replace(base, load=load), seed) for load in LOADS for seed in SEEDS]
            without = np.array([played(*cell, "")[0] for cell in cells])
            for told in ("predicted", "true"):
                found = [played(*cell, told) for cell in cells]
                ratios = np.array([figures for figures, _ in found]) / without
                ttft, e2e, rare, mean = np.exp(np.log(ratios).mean(axis=0))
                moved = np.mean([share for _, share in found])
                yield (
                    f"| {workload}, {fleet} | {told} | {moved:.1%} | {ttft:.2f} | {e2e:.2f} "
                    f"| {ratios[:, 1].min():.2f} to {ratios[:, 1].max():.2f} "
                    f"| {rare:.2f} | {mean:.2f} |"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workloads", nargs="+", default=WORKLOADS)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    arguments = parser.parse_args()
    for line in table(arguments.workloads, arguments.requests):
        print(line, flush=True)


if __name__ == "__main__":
    main()
