"""Real engines and their simulated twins on one trace: the error of every percentile.

Starts a vLLM and an SGLang on the CPU, one after the other (``make engines`` installs them), or
takes the URL of an engine in service with ``--url``. Measures, replays the trace live several
times and simulated once at each load, and prints one Markdown table. With the small random model
a token takes about 20 ms on one core, so lengths are scaled to 15 % of the trace's.

On a machine that others use the engine's own speed drifts by tens of percent; the table says by
how much. Half of its cores should be idle, or be made so: where Linux shares the processor by
session, ``nice`` alone does nothing, and ``setsid sh -c 'echo -20 > /proc/self/autogroup; exec
python -m benchmarks.real_engine_twin'`` (as root) does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from router.cli.main import run
from tests.engines.servers import LIMITS, EngineName, Wanted, engine_python, missing, serving

Results = list[dict[str, Any]]


def validated(
    url: str, told: list[str], load: float, arguments: argparse.Namespace, folder: Path
) -> dict[str, Any]:
    """One ``motley validate``; its JSON, or ends with its exit code."""
    out = folder / "validation.json"
    command = ["validate", arguments.trace, "--url", url, "--gpu", arguments.gpu, *told]
    command += ["--load", str(load), "--minutes", str(arguments.minutes)]
    command += ["--repeat", str(arguments.repeat), "--scale-lengths", str(arguments.scale_lengths)]
    command += ["--seconds", str(arguments.seconds), "--max-prompt-tokens", "512"]
    command += ["--seed", str(arguments.seed), "--json", str(out)]
    with contextlib.redirect_stdout(sys.stderr):  # which leaves stdout to the table
        code = run(command)
    if code:
        sys.exit(code)
    return {"load": load, **json.loads(out.read_text())}


def table(results: Results) -> str:
    """A column per engine and load, a row per percentile."""
    heads = [f"{r['engine']['name']} {r['engine']['version']}, load {r['load']:g}" for r in results]
    lines = ["| real, twin (live runs) | " + " | ".join(heads) + " |"]
    lines.append("|---" + "|---:" * len(results) + "|")
    for k, row in enumerate(results[0]["rows"]):
        cells = [_cell(r["rows"][k]) for r in results]
        lines.append(f"| {row['metric']} P{row['quantile']:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: dict[str, Any]) -> str:
    own = "" if row["spread_percent"] is None else f" (±{row['spread_percent']:.0f} %)"
    return f"{row['real_s']:.3g} s, {row['error_percent']:+.0f} %{own}"


def footnotes(results: Results) -> str:
    """What the table stands on."""
    lines = [
        "Real: seconds in the live runs together. Twin: error of the simulated percentile. Live "
        "runs: how far one of them is from their mean at most; no twin can be nearer than that."
    ]
    for result in results:
        engine, workload = result["engine"], result["workload"]
        lines.append(
            f"- {engine['name']}, load {result['load']:g}: {workload['requests']} "
            f"requests in {workload['span_s']:.0f} s (mean {workload['mean_input_tokens']:.0f} in, "
            f"{workload['mean_output_tokens']:.0f} out), {len(result['live'])} live run(s); the "
            f"engine's own speed drifted by {result['drift_percent']:.0f} % between probes"
        )
        lines += [f"  - {note}" for note in result["notes"]]
    return "\n".join(lines)


def _engines(arguments: argparse.Namespace, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """URL of each engine and what has to be told of it, while it runs."""
    if arguments.url:
        yield arguments.url, []
        return
    for name in arguments.engines:
        if engine_python(name) is None:
            print(f"skipped: {missing(name)}", file=sys.stderr)
            continue
        with serving(folder, Wanted(name)) as (server,):
            yield server.url, [part for flag in LIMITS[name].items() for part in flag]


def main() -> None:
    engines: list[EngineName] = ["vllm", "sglang"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="", help="an engine in service, instead of starting one")
    parser.add_argument("--engines", nargs="+", default=engines, choices=engines)
    parser.add_argument("--gpu", default="cpu")
    parser.add_argument("--trace", default="azure-conv-like")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.5])
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=120.0, help="of probing, per load")
    parser.add_argument("--scale-lengths", type=float, default=0.15)
    parser.add_argument("--seed", type=int, default=0, help="of the probe and the workload")
    parser.add_argument("--out", type=Path, help="also write all of it there, as JSON")
    arguments = parser.parse_args()
    results: Results = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for url, told in _engines(arguments, folder):
            results += [validated(url, told, x, arguments, folder) for x in arguments.loads]
    if not results:
        return
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    print(f"{table(results)}\n\n{footnotes(results)}")


if __name__ == "__main__":
    main()
