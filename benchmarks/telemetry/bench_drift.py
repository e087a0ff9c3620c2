"""What feedback is worth when a card falls sick: P99 with it and without, on the same traffic.

The demo's fleet under the built-in conversation workload for twenty minutes, policy ``motley``,
belief 20% wrong as in production; the faults are on a timeline. Two seeds, their mean.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).parents[2]))

from router.config.load import load_config
from simulator.faults import Fault
from simulator.options import ReplayOptions
from simulator.run import run_policy
from simulator.summary import summarize
from simulator.synthetic import builtin_trace
from simulator.traces.transform import scale_rate

FLEET = Path(__file__).parents[2] / "deploy" / "fleets" / "demo.yaml"


def slow(backend: str, factor: float, at_s: float = 120.0, for_s: float | None = None) -> Fault:
    return Fault(at_s=at_s, backend=backend, kind="slow", factor=factor, for_s=for_s)


SCENARIOS: dict[str, tuple[float, list[Fault]]] = {
    "nothing happens": (0.2, []),
    "belief 50 % wrong": (0.4, []),
    "an A100 throttled to a third for 6 minutes": (0.2, [slow("a100-80-0", 3.0, for_s=360.0)]),
    "an A100 at half speed from minute 2 on": (0.2, [slow("a100-80-1", 2.0)]),
    "both V100 shared: at 60 % from minute 2 on": (
        0.2,
        [slow("v100-32-0", 1.67), slow("v100-32-1", 1.67)],
    ),
    "two T4 pairs throttled to a quarter": (0.2, [slow("t4-0", 4.0), slow("t4-1", 4.0)]),
}


def p99(
    feedback: bool, error: float, faults: Sequence[Fault], seeds: Sequence[int], rate: float
) -> tuple[float, float]:
    """(TTFT, E2E) in seconds."""
    found = []
    for seed in seeds:
        trace = scale_rate(
            builtin_trace("azure-conv-like", duration_s=1200 * rate, seed=seed), rate
        )
        options = ReplayOptions(seed=seed, model_error=error, feedback=feedback)
        result = run_policy(trace, load_config(FLEET), "motley", options, faults=faults)
        summary = summarize(result)
        found.append((summary["ttft_s"]["p99"], summary["e2e_s"]["p99"]))
    return fmean(f[0] for f in found), fmean(f[1] for f in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rate", type=float, default=2.0, help="of the built-in workload")
    arguments = parser.parse_args()
    seeds = range(1, arguments.seeds + 1)
    print("| P99, seconds | TTFT without | TTFT with | E2E without | E2E with |")
    print("|---|--:|--:|--:|--:|")
    for name, (error, faults) in SCENARIOS.items():
        without = p99(False, error, faults, seeds, arguments.rate)
        learned = p99(True, error, faults, seeds, arguments.rate)
        cells = (without[0], learned[0], without[1], learned[1])
        print(f"| {name} | " + " | ".join(f"{value:.3g}" for value in cells) + " |")


if __name__ == "__main__":
    main()
