"""A flood of three times the fleet's capacity, and the calm after it.

::

    python -m benchmarks.policies.overload             one table (about 1 CPU-minute)

Azure conversations at seven tenths of the fluid capacity for 200 s, at three times the capacity for
120 s, at seven tenths again for 300 s. One in five is interactive (TTFT 2 s, TPOT 0.1 s), the rest
is bulk without targets. What is counted is goodput: requests served to the end, with every target
of their class kept; bulk counts when it is served at all. *Peak* is the most that the same policy
with the same admission delivers at any steady load up to three times; *flood* is what it delivers
in the second half of the flood. *Recovered* is the first moment after the flood from which on
interactive requests keep their targets again (95 % of the next thirty seconds' ones), in seconds
after its end.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
STEADY = (1.0, 1.5, 3.0)
STEADY_S = 100.0
MIX = {"interactive": 1.0, "bulk": 4.0}
MOST_PER_S = 40.0
"""More than the fleet can do, in requests per second."""
OPTIONS = ReplayOptions(model_error=0.25)
BACK_SHARE, BACK_S = 0.95, 30.0
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Flood:
    """What one policy made of it.

    Attributes:
        peak_per_s: most goodput of a steady load.
        flood_per_s: goodput in the second half of the flood.
        interactive_before, interactive_flood: share within the targets.
        bulk_flood: share of the bulk that came in the flood and was served in the end.
        recovered_s: after the flood's end; ``None`` if not within the calm that followed.
    """

    peak_per_s: float
    flood_per_s: float
    interactive_before: float
    interactive_flood: float
    bulk_flood: float
    recovered_s: float | None


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


def judged(result: RunResult) -> tuple[Floats, Floats, Bools, Bools, Bools]:
    """Arrivals, ends, which are interactive, which were served, which of those count."""
    known = latencies(result)
    labels = result.trace.slo_class
    is_interactive = np.array([labels[i] == "interactive" for i in range(len(result.trace))])
    ended = np.array(result.records.finished_s, dtype=np.float64)
    good = np.where(is_interactive, known.slo_met, known.completed)
    return result.trace.arrivals(), ended, is_interactive, known.completed, good


def goodput(result: RunResult, begin_s: float, end_s: float) -> float:
    """Good answers that ended between these moments, per second."""
    _, ended, _, _, good = judged(result)
    return float(np.sum(good & (ended >= begin_s) & (ended < end_s)) / (end_s - begin_s))


def recovery(result: RunResult, after_s: float) -> float | None:
    """When interactive requests keep their targets again, seconds after ``after_s``."""
    arrived, _, is_interactive, _, good = judged(result)
    mine = is_interactive & (arrived >= after_s)
    at, kept = arrived[mine] - after_s, good[mine]
    for start in np.arange(0.0, SPANS[2][1] - BACK_S, 1.0):
        here = (at >= start) & (at < start + BACK_S)
        if here.any() and float(kept[here].mean()) >= BACK_SHARE:
            return float(start)
    return None


def measure(policy: str, *, admission: bool, seed: int) -> Flood:
    """Replay steady loads and the flood."""
    sections: dict[str, Any] = {"admission": {"enabled": True}}
    config = fleet("balanced", **(sections if admission else {"reliability": PATIENT}))
    options = replace(OPTIONS, seed=seed)
    steady = [
        goodput(
            run_policy(segment(load, STEADY_S, config, seed), config, policy, options),
            STEADY_S / 3,
            STEADY_S,
        )
        for load in STEADY
    ]
    result = run_policy(flood(config, seed), config, policy, options)
    arrived, _, is_interactive, completed, good = judged(result)
    begin, end = SPANS[0][1], SPANS[0][1] + SPANS[1][1]
    before, during = arrived < begin, (arrived >= begin) & (arrived < end)
    assert result.count(Status.PENDING) == 0
    return Flood(
        max(steady),
        goodput(result, (begin + end) / 2, end),
        float(good[is_interactive & before].mean()),
        float(good[is_interactive & during].mean()),
        float(completed[~is_interactive & during].mean()),
        recovery(result, end),
    )


def table(seed: int) -> Iterator[str]:
    """A row a policy, with and without admission."""
    yield "| policy | admission | goodput at its peak | in the flood | | interactive in SLO"
    yield " before | in the flood | bulk of the flood served | recovered after |\n"
    yield "|---|---|--:|--:|--:|--:|--:|--:|--:|\n"
    for policy, admission in (
        ("least-request", False),
        ("least-request", True),
        ("motley", False),
        ("motley", True),
    ):
        told = measure(policy, admission=admission, seed=seed)
        back = "not in 300 s" if told.recovered_s is None else f"{told.recovered_s:.0f} s"
        yield (
            f"| `{policy}` | {'on' if admission else 'off'} | {told.peak_per_s:.1f} /s "
            f"| {told.flood_per_s:.1f} /s | {told.flood_per_s / told.peak_per_s:.0%} "
            f"| {told.interactive_before:.1%} | {told.interactive_flood:.1%} "
            f"| {told.bulk_flood:.0%} | {back} |\n"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    for part in table(parser.parse_args().seed):
        print(part, end="", flush=True)


if __name__ == "__main__":
    main()
