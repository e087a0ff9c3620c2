"""Look for fleets and workloads on which Motley loses to somebody: drawn, not chosen.

::

    python -m benchmarks.policies.search                 (about 6 CPU-minutes)
    python -m benchmarks.policies.search --first 1000    other draws

Every draw is a fleet (2 to 48 engines of one to four kinds, among them one fast card among slow
ones, all alike, a hundred times faster than the rest), a workload (a window of a recorded trace,
drawn lengths and arrivals of ``held_out.py``, only long answers, only long prompts), a load from
0.3 to 1.1 of the capacity, a belief 20 to 60 % wrong and scrapes 1 to 10 s old. All peers see the
same. The worst draws are run again with more seeds, so that what is told is not the worst of many
chances: by how much the best peer of each was better there.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from benchmarks.policies import held_out
from benchmarks.policies.scenarios import MODEL, RECORDED, Scenario, capacity_per_s, trace_of
from benchmarks.policies.tables import PEERS, Pair
from router.config.load import MotleyConfig, load_config
from simulator import arrivals
from simulator.options import ReplayOptions
from simulator.run import run_policy
from simulator.summary import summarize
from simulator.traces.columns import Trace
from simulator.traces.transform import apply_max_tokens, scale_rate

Random = np.random.Generator
FAST = ("h100", "a100-80", "a100-40", "l40s")
SLOW = (("v100-32", 1), ("l4", 1), ("a10g", 1), ("t4", 2), ("v100-16", 2), ("a40", 1))
QUEUES = {"queue_timeout_s": 86_400, "queue_size": 1_000_000}


def _long_answers(rng: Random) -> tuple[int, int]:
    return int(rng.integers(20, 1_000)), int(rng.integers(800, 3_000))


def _long_prompts(rng: Random) -> tuple[int, int]:
    return int(min(4_000 * (1.0 + rng.pareto(1.5)), 20_000)), int(rng.integers(2, 300))


DRAWN = {
    "long-answers": held_out.Drawn(lambda rng: arrivals.poisson(1.0, rng), _long_answers),
    "long-prompts": held_out.Drawn(lambda rng: arrivals.gamma(1.0, 1.5, rng), _long_prompts),
}
WORKLOADS = (*RECORDED, *held_out.DRAWN, *DRAWN, held_out.SESSIONS)


@dataclass(frozen=True, slots=True)
class Draw:
    """One fleet under one load.

    Attributes:
        number: of the draw.
        fleet: GPU, engine, cards per engine, how many.
        workload, load, model_error, scrape_s: what it is put to.
    """

    number: int
    fleet: tuple[tuple[str, str, int, int], ...]
    workload: str
    load: float
    model_error: float
    scrape_s: float

    def __str__(self) -> str:
        cards = " + ".join(
            f"{count} {gpu}{f' x{cards}' if cards > 1 else ''}{'' if engine == 'vllm' else ' sgl'}"
            for gpu, engine, cards, count in self.fleet
        )
        return (
            f"{self.number} | {cards} | {self.workload} | {self.load:.2f} | "
            f"{self.model_error:.0%}, {self.scrape_s:.0f} s"
        )

    def config(self, policy: str) -> MotleyConfig:
        entries = [
            {"gpu": gpu, "engine": engine, "tensor_parallel": cards, "count": count, "model": MODEL}
            for gpu, engine, cards, count in self.fleet
        ]
        return load_config({"backends": entries, "policy": {"name": policy}, "reliability": QUEUES})

    def trace(self, requests: int, seed: int) -> tuple[Trace, float]:
        """What arrives, at the load, and the factor its times were divided by."""
        config, own = self.config("least-request"), 1_000 * self.number + seed
        if self.workload not in DRAWN:
            return trace_of(Scenario(self.workload, "", self.load, requests), config, own)
        plain = DRAWN[self.workload].trace(self.workload, requests, own)
        scale = self.load * capacity_per_s(config, plain) * plain.span_s / len(plain)
        limited = apply_max_tokens(plain, "ceiling", np.random.default_rng(own))
        return scale_rate(limited, scale), scale


def draw(number: int) -> Draw:
    """The draw of this number, always the same."""
    rng = np.random.default_rng([number, 0x5EA7])
    slow = [SLOW[k] for k in rng.permutation(len(SLOW))[: rng.integers(1, 3)]]
    fast = str(rng.choice(FAST))
    most = int(rng.choice((2, 4, 8, 16)))
    shape = rng.random()
    fleet: list[tuple[str, str, int, int]] = []
    if shape < 0.1:
        fleet.append((fast, "vllm", 1, 1 + most // 2))
    else:
        count = 1 if shape < 0.5 else int(rng.integers(1, 1 + most // 2))
        engine = "sglang" if rng.random() < 0.3 else "vllm"
        fleet.append((fast, engine, 1, count))
        fleet += [(gpu, "vllm", cards, int(rng.integers(1, 1 + most))) for gpu, cards in slow]
        if shape > 0.8:
            other = str(rng.choice([gpu for gpu in FAST if gpu != fast]))
            fleet.append((other, "vllm", 1, int(rng.integers(1, 1 + most // 2))))
    return Draw(
        number,
        tuple(fleet),
        str(rng.choice(WORKLOADS)),
        float(rng.uniform(0.3, 1.1)),
        float(rng.uniform(0.2, 0.6)),
        float(rng.choice((1.0, 2.0, 5.0, 10.0))),
    )


Job = tuple[Draw, int, int]
Rows = dict[int, dict[str, Pair]]


def replay(job: Job) -> dict[str, Pair]:
    """P99 of TTFT and E2E of every policy on the same arrivals."""
    one, requests, seed = job
    trace, scale = one.trace(requests, seed)
    options = ReplayOptions(seed=seed, model_error=one.model_error, scrape_interval_s=one.scrape_s)
    rows = {}
    for name in ("motley", *PEERS):
        run = summarize(run_policy(trace, one.config(name), name, options, rate_scale=scale))
        rows[name] = run["ttft_s"]["p99"], run["e2e_s"]["p99"]
    return rows


def against_best(rows: Rows, which: int) -> tuple[float, str]:
    """Motley's P99 over the least of any peer over the seeds, and whose that is."""
    means = {
        name: statistics.fmean(math.log(max(row[name][which], 1e-3)) for row in rows.values())
        for name in next(iter(rows.values()))
    }
    best = min(PEERS, key=means.__getitem__)
    return math.exp(means["motley"] - means[best]), best


def table(draws: Sequence[Draw], rows: dict[int, Rows], which: int, most: int) -> Iterable[str]:
    told = sorted(((against_best(rows[d.number], which), d) for d in draws), key=lambda x: -x[0][0])
    for (ratio, best), one in told[:most]:
        yield f"| {one} | {ratio:.2f} | `{best}` |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--draws", type=int, default=60)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=5, help="of the worst")
    parser.add_argument("--worst", type=int, default=8, help="of either P99, run again")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    draws = [draw(options.first + k) for k in range(options.draws)]
    rows: dict[int, Rows] = {one.number: {} for one in draws}
    with ProcessPoolExecutor(options.workers) as pool:
        jobs = [(one, options.requests, 0) for one in draws]
        for (one, _, seed), row in zip(jobs, pool.map(replay, jobs), strict=True):
            rows[one.number][seed] = row
        once = {k: [against_best(rows[d.number], k)[0] for d in draws] for k in (0, 1)}
        worst = {
            draws[k].number: draws[k]
            for which in (0, 1)
            for k in sorted(range(len(draws)), key=lambda k: -once[which][k])[: options.worst]
        }
        again = [
            (one, options.requests, seed)
            for one in worst.values()
            for seed in range(1, options.seeds)
        ]
        for (one, _, seed), row in zip(again, pool.map(replay, again), strict=True):
            rows[one.number][seed] = row
    for which, figure in enumerate(("TTFT", "E2E")):
        mean = math.exp(statistics.fmean(map(math.log, once[which])))
        beyond = sum(ratio > 1.05 for ratio in once[which])
        print(
            f"P99 {figure} over the best peer of each of {len(draws)} draws: {mean:.2f}; more than "
            f"5 % above it in {beyond} by one seed. The worst of these over {options.seeds} seeds:"
            "\n\n| draw | fleet | workload | load | belief, scrapes | ratio | best peer |\n"
            "|--:|---|---|--:|---|--:|---|"
        )
        print("\n".join(table(list(worst.values()), rows, which, options.worst)), "\n")


if __name__ == "__main__":
    main()
