"""Write the measured tables anew: ``python -m benchmarks.readme [NAME ...]``.

Each block (``blocks.py``), in README or on the page of what was measured, is replaced by the output
of its commands (``measured.py``), with the commands themselves and the commit they ran on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from benchmarks.blocks import write
from benchmarks.measured import (
    ROOT,
    accuracy,
    calibration,
    fenced,
    gateway,
    headline,
    policies,
    replays,
    run,
    table_of,
    twin,
)

PAGES = [ROOT / "README.md", ROOT / "docs" / "pages" / "explanation" / "what-was-measured.md"]
STRONG = "least-request nginx-least-conn lmetric aibrix-slo-least-load marginal-delay motley"
"""Who had the least of either P99 in some scenario when all were run, and ours."""

BLOCKS: dict[str, Callable[[], str]] = {
    "classes": table_of(
        "python -m benchmarks.policies.serving classes",
        "Azure conversations, a fifth interactive (TTFT 2 s, TPOT 0.1 s), a fifth throughput, the "
        "rest bulk; 9 mixed engines; goodput without bulk, which has no target. At 3 the two "
        "classes with targets ask for 1.2 times the capacity by themselves; throughput gives way.",
    ),
    "disaggregation": table_of(
        "python -m benchmarks.policies.disaggregation",
        "Off / on (split where predicted to be better) / dedicated (the first kind of card only "
        "computes prompts, the other only answers; of equal ones half each). Medians of 4000 + "
        "200 tokens (long prompts) and 1000 + 400 (chat), seconds, 100 Gbit/s between cards, "
        "belief 25 % wrong, policy `motley`; split: share of requests with `on`.",
    ),
    "relocation": table_of(
        "python -m benchmarks.policies.relocation",
        "Ratios with moves over without, policy `motley`, 5,000 requests, loads 0.5, 0.75 and 0.9, "
        "two seeds: geometric means; of it: the extremes of E2E P99. Remaining: as predicted, or "
        "the truth. At most one move a request and 10 % more prefill, belief 25 % wrong; in "
        "`slo-mix` of the interactive class.",
    ),
    "slow-tail": table_of(
        "python -m benchmarks.policies.slow_tail",
        "The slowest 1 % of the same replays without moves: who ran where, what share of E2E had "
        "gone by before the first token, and E2E, as a share of what it was, had each been moved "
        "to the best backend after a quarter, half and three quarters of its tokens; harm: of the "
        "move at half.",
    ),
    "headline": headline,
    "policies": policies,
    "evidence": replays(
        "",
        "A belief 25 % wrong, scrapes as old as each router's, predicted lengths. In `slo-mix` the "
        "P99s are the interactive class's and Motley's queue honours the classes; the peers, which "
        "have none, are as they are, and 'by class' behind that queue too.",
        page="out/bench-policies.html",
    ),
    "longer": replays(
        f" --requests 4000 --seeds 2 --policies {STRONG} goodserve-just-enough",
        "The same scenarios, four times as long. A belief 25 % wrong.",
    ),
    "held-out": replays(f" --held-out --seeds 2 --policies {STRONG}", "A belief 25 % wrong."),
    "ablation": replays(
        " --ablation --seeds 2 --loads 0.75 --fleets a100-heavy balanced t4-heavy",
        "A belief 25 % wrong.",
    ),
    "late-binding": replays(
        " --ablation --variants motley minus_late_binding minus_waiting_for_one --by-workload"
        " --workloads azure-code mooncake-prefix slo-mix --fleets balanced t4-heavy"
        " --loads 0.75 0.9 --seeds 8",
        "Four scenarios each, eight seeds, ratios to `motley`: geometric mean, its 95 % interval "
        "over scenarios and seeds, and after the bar the worst scenario.",
    ),
    "rivals": table_of(
        "python benchmarks/gateway/bench_rivals.py",
        "Azure 2023 traces at 5.4 and 1.8 requests/s on an A100, a V100 and two pairs of T4, each "
        "a fifth faster or a quarter slower than catalogues say; engines emulated in real time. "
        "In brackets the simulator, same arrivals, with the policy that stands for the gateway.",
    ),
    "headroom": replays(" --headroom", "Three seeds, a belief 25 % wrong."),
    "restart": table_of(
        "python -m benchmarks.policies.restart --seeds 2 --loads 0.75 0.9",
        "A belief 25 % wrong, a minute between stop and start, the same cards.",
    ),
    "cross-check": table_of(
        "python -m benchmarks.bench_cross_check --rounds 3 --requests 48",
        "Noise: how far the rounds of one tool are apart at most.",
    ),
    "length": fenced("python -m benchmarks.length_prediction"),
    "drift": table_of(
        "python benchmarks/telemetry/bench_drift.py",
        "Demo fleet, built-in conversations at twice their rate, 20 minutes, two seeds, "
        "belief 20 % wrong unless said, policy `motley`.",
    ),
    "calibration": calibration,
    "telemetry": fenced("python benchmarks/telemetry/bench_observe.py"),
    "twin": twin,
    "accuracy": accuracy,
    "gpu": table_of(
        "python -m benchmarks.gpu.accuracy --grid",
        "Median / P90 of the absolute error of an iteration's time, in percent; bias: median, "
        "positive where predicted too slow. Held back: fitted to the other half of the points.",
    ),
    "mixed-gpu": table_of(
        "python -m benchmarks.gpu.mixed_report --short",
        "The first 1,137 and 1,611 requests of Azure's conversation trace in 40 s, once each; at "
        "least that (>) where more than 1 % were not answered 15 s after the last came.",
    ),
    "simulator": fenced("python -m benchmarks.simulator_speed"),
    "gateway": gateway,
    "decision": fenced("python -m benchmarks.decision_cost"),
    "solver": table_of(
        "python -m benchmarks.solver_scaling --best 40",
        "Distance to the best placement known, and what it took. CP-SAT knows integers only and "
        "works on a rounded copy; what anybody finds is priced exactly.",
    ),
    "routing": table_of(
        "python -m benchmarks.solver_scaling --live",
        "CPU time, one thread; working out what each class costs on each group is included.",
    ),
    "prices": table_of(
        "python -m benchmarks.price_ablation --requests 1500",
        "Ratios with over without prices (below 1 is better), geometric mean over three loads and "
        "two seeds, in brackets the worst; both policies told to read them.",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("blocks", nargs="*", metavar="NAME", help=f"of: {', '.join(BLOCKS)}")
    names = parser.parse_args().blocks or list(BLOCKS)
    commit = run("git rev-parse --short HEAD").strip()
    for name in names:
        page = write(PAGES, name, f"{BLOCKS[name]()}\n\n<sub>at commit {commit}</sub>")
        print(f"{page.name}: {name}")


if __name__ == "__main__":
    main()
