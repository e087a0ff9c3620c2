"""Write ``RELIABILITY.md`` anew: ``python -m benchmarks.reliability [FIGURE ...]``.

The table of promises comes from ``promises.py``. Figures are measured by commands of their own,
several at once (``ALONE`` before the others, since they tell time by the wall), and stand between
markers; without names all are measured again (half an hour on two quiet cores; the name ``none``
writes the table only).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks.blocks import write
from benchmarks.promises import table

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "RELIABILITY.md"
ALONE = ("overload-http",)


def run(*words: str, codes: Sequence[int] = (0,)) -> str:
    """Standard output of a command in the repository's root."""
    program = {"python": sys.executable}.get(words[0], words[0])
    done = subprocess.run(
        [program, *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode not in codes:
        sys.exit(f"{' '.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout


def soak(minutes: float) -> str:
    command = f"python -m tests.fire.soak --minutes {minutes:g}"
    return told_of_soak(json.loads(run(*command.split(), codes=(0, 1))), command)


def told_of_soak(told: dict[str, Any], command: str) -> str:
    """A table of slopes, and what they came from."""
    ends = ", ".join(f"{count} {end}" for end, count in told["ends"].items())
    verdict = "; ".join(told["faults"]) or "nothing grows"
    rows = [
        f"| {name} | {one['median']:.4g} | {one['per_min']:+.3g} | {one['growth']:+.1%} "
        f"| {one['least_growth']:+.1%} |"
        for name, one in told["trends"].items()
    ]
    return "\n".join(
        (
            f"{told['requests']} requests in {told['minutes']:g} minutes ({ends}): {verdict}.",
            "",
            "| after the warm-up | median | slope, per minute | growth in all | at least |",
            "|---|--:|--:|--:|--:|",
            *rows,
            "",
            "Memory in MB, latency in ms; *at least* is the lower end of the slope's 95 % "
            "interval. Added latency is that of a request through the gateway less that of one "
            "sent to the same engine directly, taken in pairs. Clients, engines and gateway "
            "share one process; "
            f"{told['steal']:.0%} of the machine's CPU time went to its neighbours. `{command}`",
        )
    )


def mutation() -> str:
    command = "python -m tests.mutation --sample 80 --seed 7"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "score.json")
        run(*command.split(), "--json", str(file), codes=(0, 1))
        return told_of_mutants(json.loads(file.read_text()), command)


def told_of_mutants(score: dict[str, Any], command: str) -> str:
    parts = ", ".join(f"{name} {killed}" for name, killed in score["by_target"].items())
    caught = score["tried"] - score["survived"] - score["explained"]
    return (
        f"{caught} of {score['tried']} mutants are noticed, {score['explained']} change nothing "
        f"that can be told (`tests/mutation/explained.py`), {score['survived']} survive: {parts}. "
        f"Seed {score['seed']}. `{command}`"
    )


def fuzz() -> str:
    command = "python -m tests.fuzz --seconds 20"
    said = run(*command.split()).strip().replace("\n", "; ")
    return f"{said}. `{command}`"


def overload() -> str:
    command = "python -m benchmarks.policies.overload"
    return f"{run(*command.split()).strip()}\n\n`{command}`"


def overload_http() -> str:
    command = "python -m tests.fire.overload --seeds 3"
    return f"{run(*command.split()).strip()}\n\n`{command}`"


def figures(minutes: float) -> dict[str, Callable[[], str]]:
    return {
        "overload": overload,
        "overload-http": overload_http,
        "soak": lambda: soak(minutes),
        "fuzz": fuzz,
        "mutation": mutation,
    }


def main() -> None:
    known = [*figures(0.0), "none"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of: {', '.join(known)}")
    parser.add_argument("--minutes", type=float, default=20.0, help="of the soak")
    parser.add_argument("--at-once", type=int, default=4, help="figures measured side by side")
    options = parser.parse_args()
    commit = run("git", "rev-parse", "--short", "HEAD").strip()
    measure = figures(options.minutes)
    write([PAGE], "promises", table())
    wanted = [name for name in options.figures or measure if name != "none"]

    def place(name: str, body: str) -> None:
        write([PAGE], name, f"{body}\n\n<sub>at commit {commit}</sub>")
        print(f"RELIABILITY: {name}", flush=True)

    for name in wanted:
        if name in ALONE:
            place(name, measure[name]())
    with ThreadPoolExecutor(options.at_once) as pool:
        running = {pool.submit(measure[name]): name for name in wanted if name not in ALONE}
        for done in as_completed(running):
            place(running[done], done.result())


if __name__ == "__main__":
    main()
