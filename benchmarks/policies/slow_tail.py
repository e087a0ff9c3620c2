"""Where the slowest answers ran, and where they should rather have been by a quarter of the way.

::

    python -m benchmarks.policies.slow_tail              (about 50 CPU-seconds)

For the slowest 1 % of each replay with ``motley`` (E2E; in the mix of classes those of the
interactive class): which share of them ran on the fleet's fastest kind of card, which share of
their time was over before the first token, and how long they would have taken had they been moved
after a quarter, half and three quarters of their tokens to the best backend there was. That
backend is chosen with the truth: the pace there is what those who decoded there at that moment
really got, and its own share on top; the prompt and the text so far are computed at the true
speed, and nothing else is waited for. ``harm`` is what a move at half costs everybody else there,
less what it spares those it leaves, per second that it gains.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.policies.relocation import FLEETS, LOADS, REQUESTS, SEEDS, WORKLOADS
from benchmarks.policies.scenarios import SLO_MIX, Scenario, config_of, trace_of
from benchmarks.policies.slo_mix import JUDGED
from router.domain.state import LinearCost
from simulator.options import ReplayOptions
from simulator.results import Latencies, RunResult, latencies
from simulator.run import run_policy

Floats = npt.NDArray[np.float64]
SHARE = 0.01
LIFE = (0.25, 0.5, 0.75)
FASTEST_FIRST = ("h100", "a100-80", "a100-40", "l4", "v100-32", "t4")


@dataclass(frozen=True, slots=True)
class Moved:
    """One answer, had it been moved: its E2E, and what that costs others, in seconds."""

    e2e_s: float
    harm_s: float


class Told:
    """One replay, and what is true of its engines."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        trace, _ = trace_of(scenario, config_of(scenario.fleet, "least-request"), seed)
        config = config_of(scenario.fleet, "motley", classes=scenario.workload == SLO_MIX)
        options = ReplayOptions(seed=seed, model_error=0.25)
        self.judged = np.ones(len(trace), dtype=np.bool_)
        if scenario.workload == SLO_MIX:
            self.judged = np.array([trace.slo_class[i] == JUDGED for i in range(len(trace))])
        self.run: RunResult = run_policy(trace, config, "motley", options)
        self.latencies: Latencies = latencies(self.run)
        self.costs: list[LinearCost] = [
            config.hardware.iteration_model(spec).linear() for spec in self.run.backends
        ]
        records = self.run.records
        self.where = np.array(records.backend)
        self.first_s = np.array(records.first_token_s)
        self.last_s = np.array(records.finished_s)
        self.tokens = np.array(records.output_tokens, dtype=np.float64)
        self.prompts = np.array(trace.input_tokens, dtype=np.float64)

    def slowest(self) -> list[int]:
        judged = self.latencies.completed & self.judged
        e2e = np.where(judged, self.latencies.e2e_s, -1.0)
        return np.argsort(e2e)[-max(1, int(SHARE * np.count_nonzero(judged))) :].tolist()

    def on_fastest(self, i: int) -> bool:
        kinds = [spec.gpu for spec in self.run.backends]
        return kinds[self.where[i]] == min(kinds, key=FASTEST_FIRST.index)

    def moved(self, i: int, life: float) -> Moved:
        """To the best backend, after this share of its tokens; where it was if none is better."""
        at = self.first_s[i] + life * (self.last_s[i] - self.first_s[i])
        rest = (1.0 - life) * self.tokens[i]
        held = self.prompts[i] + life * self.tokens[i]
        arrival_s = self.last_s[i] - self.latencies.e2e_s[i]
        best = Moved(float(self.latencies.e2e_s[i]), 0.0)
        spared_s = self._slowed_s(int(self.where[i]), i, at, held, rest)
        for k, cost in enumerate(self.costs):
            prefill_s = cost.prompt_s(int(held))
            pace_s = self._pace_s(k, at) + cost.seq_s + cost.context_s * held
            e2e_s = at - arrival_s + prefill_s + rest * pace_s
            if k != self.where[i] and e2e_s < best.e2e_s:
                stalled_s = prefill_s * np.count_nonzero(self._decoding(k, at))
                harm_s = stalled_s + self._slowed_s(k, i, at, held, rest) - spared_s
                best = Moved(float(e2e_s), float(harm_s))
        return best

    def _decoding(self, k: int, at: float) -> npt.NDArray[np.bool_]:
        there: npt.NDArray[np.bool_] = self.where == k
        return there & (self.first_s <= at) & (self.last_s > at)

    def _pace_s(self, k: int, at: float) -> float:
        """Seconds per token that those get who decode there; of an idle engine its own."""
        tpot = self.latencies.tpot_s[self._decoding(k, at)]
        tpot = tpot[~np.isnan(tpot)]
        return float(tpot.mean()) if len(tpot) else self.costs[k].step_s

    def _slowed_s(self, k: int, i: int, at: float, held: float, rest: float) -> float:
        """Seconds that one more sequence adds to the others there, as long as both last."""
        others = self._decoding(k, at)
        others[i] = False
        first, last = self.first_s[others], self.last_s[others]
        left = self.tokens[others] * (last - at) / (last - first)
        each_s = self.costs[k].seq_s + self.costs[k].context_s * (held + 0.5 * rest)
        return float(each_s * np.minimum(left, rest).sum())


def row(workload: str, fleet: str) -> str:
    fastest, before, harm_s, gain_s = [], [], 0.0, 0.0
    shorter: dict[float, list[float]] = {life: [] for life in LIFE}
    for load in LOADS:
        for seed in SEEDS:
            told = Told(Scenario(workload, fleet, load, REQUESTS), seed)
            for i in told.slowest():
                e2e_s = told.latencies.e2e_s[i]
                fastest.append(told.on_fastest(i))
                before.append(told.latencies.ttft_s[i] / e2e_s)
                for life in LIFE:
                    moved = told.moved(i, life)
                    shorter[life].append(moved.e2e_s / e2e_s)
                    if life == LIFE[1]:
                        harm_s, gain_s = harm_s + moved.harm_s, gain_s + e2e_s - moved.e2e_s
    cells = " | ".join(f"{np.mean(shorter[life]):.2f}" for life in LIFE)
    return (
        f"| {workload}, {fleet} | {np.mean(fastest):.0%} | {np.mean(before):.0%} | {cells} "
        f"| {harm_s / gain_s:.1f} s |"
    )


def table() -> Iterator[str]:
    yield (
        "| trace, fleet | on the fastest cards | before the first token "
        "| moved at 25 % | 50 % | 75 % | harm per s gained |"
    )
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for workload in WORKLOADS:
        for fleet in FLEETS:
            yield row(workload, fleet)


def main() -> None:
    for line in table():
        print(line, flush=True)


if __name__ == "__main__":
    main()
