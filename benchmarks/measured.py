"""How the output of a command becomes a block of README or of the page of what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MOTLEY = str(Path(sys.executable).parent / "motley")
CONV = "../shared/data/traces/azure2023_conv.csv"
CODE = "../shared/data/traces/azure2023_code.csv"
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
