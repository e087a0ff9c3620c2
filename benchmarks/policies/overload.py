"""Up to three times the fleet's capacity, a flood of it, and the calm after it.

::

    python -m benchmarks.policies.overload             two tables (about 5 CPU-minutes)

Azure conversations, one in five interactive (TTFT 2 s, TPOT 0.1 s), the rest bulk, whose clients
give up after two minutes. Goodput is what is served to the end within the targets of its class,
interactive or bulk; an answer that comes too late counts for nothing, so that a fleet which is busy
with late ones shows it.

*Steady*: 200 s at 0.7, 1, 2 and 3 times the fluid capacity, of which the last 100 s count, by the
moment at which an answer ends. *Flood*: seven tenths for 200 s, three times for 120 s, seven tenths
for 300 s. *Recovered* is the first moment after the flood from which on interactive requests keep
their targets again (95 % of the next thirty seconds' ones), in seconds after its end. All over
several seeds: means, and of what is promised the worst seed.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import fmean as mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.policies.scenarios import Scenario, trace_of
from benchmarks.policies.serving import PATIENT, fleet
from router.config.load import MotleyConfig
from simulator.options import ReplayOptions
from simulator.results import RunResult, Status, latencies
from simulator.run import run_policy
from simulator.traces.columns import Trace
from simulator.traces.transform import assign

CALM, FLOOD = 0.7, 3.0
SPANS = ((CALM, 200.0), (FLOOD, 120.0), (CALM, 300.0))
STEADY = (0.7, 1.0, 2.0, 3.0)
STEADY_S = 200.0
MIX = {"interactive": 1.0, "bulk": 4.0}
BULK_S, BULK_WAITS_S = 120.0, 45.0
"""When bulk is of no use any more; how long it may wait in the router where there is admission."""
ADMITTING = {"admission": {"enabled": True, "max_wait_s": {"bulk": BULK_WAITS_S}}}
MOST_PER_S = 40.0
"""More than the fleet can do, in requests per second."""
OPTIONS = ReplayOptions(model_error=0.25)
BACK_SHARE, BACK_S = 0.95, 30.0
CONTENDERS = (
    ("least-request", False),
    ("least-request", True),
    ("motley", False),
    ("motley", True),
)
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Told:
    """What one policy made of one seed.

    Attributes:
        steady_per_s: goodput at each steady load.
        interactive_steady: share within the targets at three times the capacity.
        interactive_before, interactive_flood: the same before and in the flood.
        bulk_flood: share of the bulk that came in the flood and was served in time.
        recovered_s: after the flood's end; infinite if not within the calm that followed.
    """

    steady_per_s: tuple[float, ...]
    interactive_steady: float
    interactive_before: float
    interactive_flood: float
    bulk_flood: float
    recovered_s: float

    @property
    def kept(self) -> float:
        """Goodput at three times the capacity, as a share of the most at any load."""
        return self.steady_per_s[-1] / max(self.steady_per_s)


def segment(load: float, seconds: float, config: MotleyConfig, seed: int) -> Trace:
    """So many seconds of the mix at this load."""
    enough = int(load * seconds * MOST_PER_S)
    plain, _ = trace_of(Scenario("azure-conv", "balanced", load, enough), config, seed)
    last = int(np.searchsorted(plain.arrivals(), plain.arrivals()[0] + seconds))
    assert last < len(plain), "the window ends before the segment does"
    mixed = assign(plain.select(range(last)), "slo_class", MIX, np.random.default_rng(seed))
    return mixed.from_zero()


def flood(config: MotleyConfig, seed: int) -> Trace:
    """Calm, flood, calm."""
    whole, at_s = Trace("flood"), 0.0
    for number, (load, seconds) in enumerate(SPANS):
        part = segment(load, seconds, config, seed + number)
        whole.extend(replace(r, arrival_s=r.arrival_s + at_s) for r in part.records())
        at_s += seconds
    return whole


def judged(result: RunResult) -> tuple[Floats, Floats, Bools, Bools]:
    """Arrivals, ends, which are interactive, which are of use."""
    known = latencies(result)
    labels = result.trace.slo_class
    is_interactive = np.array([labels[i] == "interactive" for i in range(len(result.trace))])
    arrived = result.trace.arrivals()
    ended = np.array(result.records.finished_s, dtype=np.float64)
    in_time = known.completed & (ended - arrived <= BULK_S)
    good = np.where(is_interactive, known.slo_met, in_time)
    return arrived, ended, is_interactive, good


def goodput(result: RunResult, begin_s: float, end_s: float) -> float:
    """Good answers that ended between these moments, per second."""
    _, ended, _, good = judged(result)
    return float(np.sum(good & (ended >= begin_s) & (ended < end_s)) / (end_s - begin_s))


def recovery(result: RunResult, after_s: float) -> float:
    """When interactive requests keep their targets again, seconds after ``after_s``."""
    arrived, _, is_interactive, good = judged(result)
    mine = is_interactive & (arrived >= after_s)
    at, kept = arrived[mine] - after_s, good[mine]
    for start in np.arange(0.0, SPANS[2][1] - BACK_S, 1.0):
        here = (at >= start) & (at < start + BACK_S)
        if here.any() and float(kept[here].mean()) >= BACK_SHARE:
            return float(start)
    return math.inf


def measure(policy: str, *, admission: bool, seed: int) -> Told:
    """Replay steady loads and the flood."""
    sections: dict[str, Any] = ADMITTING if admission else {"reliability": PATIENT}
    config = fleet("balanced", **sections)
    options = replace(OPTIONS, seed=seed)
    steady, interactive_steady = [], 0.0
    for load in STEADY:
        run = run_policy(segment(load, STEADY_S, config, seed), config, policy, options)
        steady.append(goodput(run, STEADY_S / 2, STEADY_S))
        arrived, _, is_interactive, good = judged(run)
        interactive_steady = float(good[is_interactive & (arrived >= STEADY_S / 2)].mean())
    result = run_policy(flood(config, seed), config, policy, options)
    arrived, _, is_interactive, good = judged(result)
    begin, end = SPANS[0][1], SPANS[0][1] + SPANS[1][1]
    before, during = arrived < begin, (arrived >= begin) & (arrived < end)
    assert result.count(Status.PENDING) == 0
    return Told(
        tuple(steady),
        interactive_steady,
        float(good[is_interactive & before].mean()),
        float(good[is_interactive & during].mean()),
        float(good[~is_interactive & during].mean()),
        recovery(result, end),
    )


def tables(seeds: int) -> Iterator[str]:
    """A row a policy, with and without admission."""
    runs = {
        key: [measure(key[0], admission=key[1], seed=seed) for seed in range(seeds)]
        for key in CONTENDERS
    }
    loads = " | ".join(f"{load:g}x" for load in STEADY)
    yield f"| goodput /s, steady | admission | {loads} | 3x of its peak | worst seed |"
    yield " interactive in SLO at 3x | worst seed |\n|---|---|" + "--:|" * (len(STEADY) + 4) + "\n"
    for (policy, admission), told in runs.items():
        means = " | ".join(
            f"{mean(t.steady_per_s[n] for t in told):.1f}" for n in range(len(STEADY))
        )
        yield (
            f"| `{policy}` | {'on' if admission else 'off'} | {means} "
            f"| {mean(t.kept for t in told):.0%} | {min(t.kept for t in told):.0%} "
            f"| {mean(t.interactive_steady for t in told):.1%} "
            f"| {min(t.interactive_steady for t in told):.1%} |\n"
        )
    yield "\n| flood of 3x | admission | interactive in SLO before | in the flood | worst seed |"
    yield " bulk of the flood in time | recovered after, worst seed |\n"
    yield "|---|---|--:|--:|--:|--:|--:|\n"
    for (policy, admission), told in runs.items():
        back_s = max(t.recovered_s for t in told)
        yield (
            f"| `{policy}` | {'on' if admission else 'off'} "
            f"| {mean(t.interactive_before for t in told):.1%} "
            f"| {mean(t.interactive_flood for t in told):.1%} "
            f"| {min(t.interactive_flood for t in told):.1%} "
            f"| {mean(t.bulk_flood for t in told):.0%} "
            f"| {'not in 300 s' if back_s == math.inf else f'{back_s:.0f} s'} |\n"
        )
    yield f"\n{seeds} seeds.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    for part in tables(parser.parse_args().seeds):
        print(part, end="", flush=True)


if __name__ == "__main__":
    main()
