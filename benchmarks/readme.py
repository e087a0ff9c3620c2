"""Write the measured tables anew: ``python -m benchmarks.readme [NAME ...]``.

Each block (``blocks.py``), in README or on the page of what was measured, is replaced by the output
of its commands, with the commands themselves and the commit they ran on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.blocks import write

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs" / "pages" / "explanation" / "what-was-measured.md"]
MOTLEY = str(Path(sys.executable).parent / "motley")
CONV = "../shared/data/traces/azure2023_conv.csv"
CODE = "../shared/data/traces/azure2023_code.csv"
STRONG = "least-request nginx-least-conn lmetric aibrix-slo-least-load marginal-delay motley"
"""Who had the least of either P99 in some scenario when all were run, and ours."""
SIMULATE = "motley simulate {trace} --fleet deploy/fleets/demo.yaml --rate-scale {scale} --json -"


def run(command: str) -> str:
    """Standard output of a command, run in the repository's root."""
    program, *words = command.split()
    binary = {"motley": MOTLEY, "python": sys.executable}.get(program, program)
    # What it says of its progress is for whoever waits.
    done = subprocess.run(
        [binary, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"this failed: {command}")
    return done.stdout


def simulate(trace: str, scale: float, policies: str) -> tuple[str, list[dict[str, Any]]]:
    command = SIMULATE.format(trace=trace, scale=scale)
    command += "".join(f" --policy {name}" for name in policies.split())
    return command, json.loads(run(command))["runs"]


def headline() -> str:
    rows = [
        "| P99, seconds | TTFT, conversation | E2E, conversation | TTFT, code | E2E, code |",
        "|---|--:|--:|--:|--:|",
    ]
    names = "round-robin least-request nginx-least-conn motley"
    conv_command, conv = simulate(CONV, 2.5, names)
    code_command, code = simulate(CODE, 2.5, names)
    told = {
        "round-robin": "round robin",
        "least-request": "least request",
        "nginx-least-conn": "nginx `least_conn`, weights = true speeds",
        "motley": "**Motley**",
    }
    for one, other in zip(conv, code, strict=True):
        cells = [_s(run["ttft_s"]["p99"]) + " | " + _s(run["e2e_s"]["p99"]) for run in (one, other)]
        rows.append(f"| {told[one['policy']]} | " + " | ".join(cells) + " |")
    note = (
        f"Azure 2023 traces, whole, at {conv[0]['arrived'] / 1400:.0f} and "
        f"{code[0]['arrived'] / 1374:.1f} requests/s on the demo fleet, seed 0, belief 20 % "
        f"wrong. `{conv_command}`; `{code_command}`."
    )
    return "\n".join([*rows, "", note])


def policies() -> str:
    from router.policies.registry import POLICIES  # noqa: PLC0415

    unstable = {"random", "round-robin", "production-stack-prefixaware", "aibrix-least-latency"}
    command, runs = simulate(CONV, 2.5, " ".join(n for n in POLICIES if n not in unstable))
    rows = [
        "| policy | TTFT p50 | TTFT p99 | TPOT p99 | E2E mean | E2E p99 | SLO met |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for r in sorted(runs, key=lambda r: r["e2e_s"]["p99"]):
        ttft, tpot, e2e = r["ttft_s"], r["tpot_s"], r["e2e_s"]
        rows.append(
            f"| `{r['policy']}` | {_s(ttft['p50'])} | {_s(ttft['p99'])} | {_s(tpot['p99'])} | "
            f"{_s(e2e['mean'])} | {_s(e2e['p99'])} | {r['slo_attainment']:.1%} |"
        )
    note = (
        f"Seconds. Azure conversation 2023, {runs[0]['arrived']} requests, seed 0. Left out: "
        f"{', '.join(sorted(unstable))}, whose queues grow without bound on this fleet. "
        f"`{command.split(' --policy')[0]} --policy ...`"
    )
    return "\n".join([*rows, "", note])


def replays(more: str, note: str, *, page: str = "") -> Callable[[], str]:
    """The tables of ``benchmarks.policies.run``, and a note; the page of plots besides."""
    command = f"python -m benchmarks.policies.run{more}"
    drawn = f"{command} --html {page}" if page else command
    return lambda: f"{run(drawn).strip()}\n\n{note} `{command}`"


def noted(command: str, note: str) -> Callable[[], str]:
    return lambda: f"{run(command).strip()}\n\n{note} `{command}`."


def gateway() -> str:
    script = "python benchmarks/gateway/bench_overhead.py"
    rust = "vllm-router sglang-router smg"
    defaults = " ".join(f"{name}:cache_aware" for name in rust.split())
    command = f"{script} --peers {rust} {defaults} --backends 4 64"
    footprint = "python benchmarks/gateway/bench_footprint.py --markdown"
    note = (
        "All defaults of `motley serve`. Fixed answers from engines that cost nothing, one core "
        "for the gateways, which take turns in each of seven rounds: medians, and in brackets the "
        "ratio to vllm-router (Rust) within the rounds with its 95 % interval; P50 and P99 are "
        "those of all 2,450 requests. Peers take engines in turn, the least they can do; "
        "`:cache_aware` is the rule that they have by default, in three of the rounds. LiteLLM is "
        "left out: without the internet it waits half a minute for a tokenizer, over and over. "
        f"`{command}`"
    )
    process = run(footprint).strip()
    return f"{run(command)}\n{note}\n\n{process}\n\nOne process: `{footprint}`."


def twin() -> str:
    command = "python -m benchmarks.real_engine_twin --loads 0.4 --minutes 1 --seconds 90"
    return f"{run(command).strip()}\n\n`{command}`, seed 0; needs `make engines` and a quiet core."


def accuracy() -> str:
    """One row per engine and GPU; the command prints each phase too."""
    command = "motley accuracy --json -"
    splits = ("fitted", "held back (rows)", "held back (model)")
    cells: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in json.loads(run(command))["rows"]:
        if row["phase"] == "all":
            gpu = f"{row['gpu']} x{row['tensor_parallel']}".removesuffix(" x1")
            cells.setdefault((row["engine"], gpu), {})[row["split"]] = row
    head = " | ".join(("fitted on", "rows held back", "a model held back"))
    rows = [f"| measured on | GPU | points | {head} |", "|---|---|--:|--:|--:|--:|"]
    for (engine, gpu), found in cells.items():
        errors = " | ".join(
            f"{found[s]['median_ape']:.1f} / {found[s]['p95_ape']:.0f}" if s in found else "-"
            for s in splits
        )
        points = max(row["points"] for row in found.values())
        rows.append(f"| {engine} | {gpu} | {points} | {errors} |")
    note = (
        "Median / P95 of the absolute error of an iteration's time, in percent, prefill and decode "
        "together; `motley accuracy` shows them apart. A GPU without a last column was measured "
        "with too few models to hold one back: there the constants of another model are a guess."
    )
    return "\n".join([*rows, "", note])


def fenced(command: str) -> Callable[[], str]:
    return lambda: f"```text\n$ {command}\n{run(command).strip()}\n```"


def table_of(command: str, note: str) -> Callable[[], str]:
    """The command's own Markdown table, with a sentence and the command."""
    return lambda: f"{run(command).strip()}\n\n{note} `{command}`"


def calibration() -> str:
    command = "python benchmarks/telemetry/bench_calibration.py"
    over_http = run(f"{command} --live").strip().split("\n")[2:]
    note = (
        "Ten estimates in a row within 10 % of the truth; in brackets the median error from then "
        "on. Simulated on the first lines, median and worst of eight arrivals; a request comes "
        "every 0.7 s on average to the A100, 2.1 s to the V100 (which cannot carry that once it is "
        "2.7 times as slow) and 3.3 s to the T4 pair. On the last four lines over HTTP, one "
        f"emulated engine, 2 requests/s. `{command}`, and with `--live`."
    )
    rows = [line.replace("a100-80 vllm", "a100-80 vllm, over HTTP") for line in over_http]
    return "\n".join([run(command).strip(), *rows, "", note])


def _s(value: float) -> str:
    return f"{value:.3g}"


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
    "solver": noted(
        "python -m benchmarks.solver_scaling --best 40",
        "Distance to the best placement known, and what it took. CP-SAT knows integers only and "
        "works on a rounded copy; what anybody finds is priced exactly.",
    ),
    "routing": noted(
        "python -m benchmarks.solver_scaling --live",
        "CPU time, one thread; working out what each class costs on each group is included.",
    ),
    "prices": noted(
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
