"""A real vLLM and its simulated twin on one trace: the error of every percentile.

Needs a vLLM for the CPU (``MOTLEY_VLLM_PYTHON``), or the URL of an engine in service with
``--url``. Calibrates, replays the trace live and simulated at each load, and prints one Markdown
table. With the small random model a token takes about 20 ms on one core, so lengths are scaled to
15 % of the trace's.

On a machine that others use the engine's own speed drifts by tens of percent; the table says by
how much. Half of its cores should be idle.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.real_engine.vllm import MISSING, SETTINGS, vllm, vllm_python
from router.cli.main import run


def validated(url: str, load: float, arguments: argparse.Namespace, folder: Path) -> Any:
    """One ``motley validate``; its JSON, or ends with its exit code."""
    out = folder / f"load-{load:g}.json"
    command = ["validate", arguments.trace, "--url", url, "--gpu", arguments.gpu]
    command += ["--load", str(load), "--minutes", str(arguments.minutes)]
    command += ["--repeat", str(arguments.repeat), "--scale-lengths", str(arguments.scale_lengths)]
    command += ["--seconds", str(arguments.seconds), "--max-prompt-tokens", "512"]
    command += [part for flag in SETTINGS.items() for part in flag] if not arguments.url else []
    code = run([*command, "--json", str(out)])
    if code:
        sys.exit(code)
    return json.loads(out.read_text())


def table(results: dict[float, Any]) -> str:
    """Real, simulated and error by percentile; a group of columns per load."""
    loads = list(results)
    head = "| | " + " | ".join(f"load {load:g}: real s | simulated s | error" for load in loads)
    lines = [head + " |", "|---" + "|---:" * (3 * len(loads)) + "|"]
    for k, row in enumerate(results[loads[0]]["rows"]):
        cells = [results[load]["rows"][k] for load in loads]
        figures = " | ".join(
            f"{c['real_s']:.3g} | {c['twin_s']:.3g} | {c['error_percent']:+.0f} %" for c in cells
        )
        lines.append(f"| {row['metric']} P{row['quantile']:g} | {figures} |")
    return "\n".join(lines)


def footnotes(results: dict[float, Any]) -> str:
    """What the table stands on."""
    lines = []
    for load, result in results.items():
        engine, workload = result["engine"], result["workload"]
        spread = [r["spread_percent"] for r in result["rows"] if r["spread_percent"] is not None]
        own = f", live runs differ by up to {max(spread):.0f} %" if spread else ""
        lines.append(
            f"- load {load:g}: {engine['name']} {engine['version']}, {workload['requests']} "
            f"requests in {workload['span_s']:.0f} s (mean {workload['mean_input_tokens']:.0f} in, "
            f"{workload['mean_output_tokens']:.0f} out), {len(result['live'])} live run(s)"
            f"{own}; the engine's speed drifted by {result['drift_percent']:.0f} % between probes"
        )
        lines += [f"  - {note}" for note in result["notes"]]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="", help="an engine in service, instead of starting one")
    parser.add_argument("--gpu", default="cpu")
    parser.add_argument("--trace", default="azure-conv-like")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.3, 0.6])
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=120.0, help="of probing, per load")
    parser.add_argument("--scale-lengths", type=float, default=0.15)
    parser.add_argument("--out", type=Path, help="folder for the JSON of each load")
    arguments = parser.parse_args()
    python = vllm_python()
    if not arguments.url and python is None:
        print(f"skipped: {MISSING}")
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if arguments.url:
            results = {x: validated(arguments.url, x, arguments, folder) for x in arguments.loads}
        else:
            assert python is not None
            with vllm(python, Path(scratch)) as url:
                results = {x: validated(url, x, arguments, folder) for x in arguments.loads}
    print(f"\n{table(results)}\n\n{footnotes(results)}")


if __name__ == "__main__":
    main()
