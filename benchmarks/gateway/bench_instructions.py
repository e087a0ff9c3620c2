"""Instructions of bytecode that Motley runs for a request, by part of it.

They are counted in the gateway's own process, which is traced meanwhile and so fifty times as slow:
chores that come by the clock are in it more than they would be, and every answer is learned from,
where a busy gateway leaves some out. Unlike CPU time they hardly differ between two runs, so they
show what a change of a percent did; whether that is worth anything only CPU time tells.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

ROOT = Path(__file__).resolve().parents[2]
PARTS = {
    "policy": ("router/policies",),
    "length forecasts": ("router/perf/length",),
    "learning and metrics": (
        *("telemetry", "router/gateway/dashboard", "router/gateway/outcome_queue"),
        *("router/gateway/prompt_size", "router/gateway/pupils", "router/domain/qoe"),
    ),
    "books and predictions": (
        *("router/dispatcher", "router/deciding", "router/flights", "router/fleet_state"),
        *("router/perf", "router/domain", "router/health"),
    ),
    "client's HTTP": ("router/gateway/hot_", "router/gateway/known_heads", "router/gateway/door"),
    "engine's HTTP": ("router/gateway/connection", "router/gateway/upstream"),
    "exchange": ("router/gateway",),
}
"""The first that a file's name begins with."""
REST = "libraries"

Found = list[tuple[str, str, int, int]]
"""Of each function: file, name, instructions, calls."""


def part_of(file: str) -> str:
    """Which part a source file belongs to; its name as from the repository's root."""
    for part, prefixes in PARTS.items():
        if file.startswith(prefixes):
            return part
    return REST


def table(found: Found, requests: int, functions: int) -> str:
    """Instructions per request, by part and of the functions that take most."""
    parts: Counter[str] = Counter()
    for file, _, instructions, _ in found:
        parts[part_of(file)] += instructions
    total = sum(parts.values())
    lines = [f"{'instructions a request':36s}{total / requests:9.0f}"]
    for part, count in parts.most_common():
        lines.append(f"  {part:34s}{count / requests:9.0f}{count / total:8.1%}")
    lines.append(f"{'functions':36s}{'':9s}   calls")
    for file, name, instructions, calls in found[:functions]:
        told = f"{instructions / requests:9.0f}{calls / requests:8.2f}"
        lines.append(f"  {name:34s}{told}  {file}")
    return "\n".join(lines)


def serve(into: Path) -> None:
    """``motley`` with the arguments that are left, traced between SIGUSR1 and SIGUSR2."""
    from router.cli.main import main as motley_main  # noqa: PLC0415

    instructions: Counter[CodeType] = Counter()
    calls: Counter[CodeType] = Counter()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if event == "opcode":
            instructions[frame.f_code] += 1
        elif event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            calls[frame.f_code] += 1
        return trace

    def end(*_: object) -> None:
        sys.settrace(None)
        found: Found = [
            (c.co_filename.removeprefix(f"{ROOT}/"), c.co_qualname, n, calls[c])
            for c, n in instructions.most_common()
        ]
        into.write_text(json.dumps(found))

    signal.signal(signal.SIGUSR1, lambda *_: sys.settrace(trace))
    signal.signal(signal.SIGUSR2, end)
    motley_main()


def measure(backends: int, size_bytes: int, seconds: float) -> tuple[Found, int]:
    """What a gateway in front of mock engines ran, and for how many requests."""
    import uvloop  # noqa: PLC0415
    import windows  # noqa: PLC0415
    from bench_overhead import engines  # noqa: PLC0415
    from targets import Target, free_port, process  # noqa: PLC0415

    with engines(backends) as direct, tempfile.TemporaryDirectory() as folder:
        into, port = Path(folder) / "found.json", free_port()
        urls = ",".join(f"http://127.0.0.1:{engine}" for engine in direct.ports)
        options = f"serve --static-models llama-3.1-8b --static-backends {urls} --port {port}"
        gpus = ",".join(("a100-80", "a100-40", "v100-32", "l4")[n % 4] for n in range(backends))
        command = [sys.executable, __file__, "--serve", str(into), *options.split()]
        command += ["--static-gpus", gpus, "--static-engines", "vllm", "--log-level", "error"]
        with process(command, 0, port, ROOT) as pid:
            cpu_s = Target("motley", port, pid).cpu_s
            uvloop.run(windows.requests(port, size_bytes, seconds=2.5, cpu=cpu_s))
            os.kill(pid, signal.SIGUSR1)
            window = uvloop.run(windows.requests(port, size_bytes, seconds=seconds, cpu=cpu_s))
            os.kill(pid, signal.SIGUSR2)
            while not into.exists() or not into.stat().st_size:
                time.sleep(0.1)
            time.sleep(0.5)
            found = [tuple(row) for row in json.loads(into.read_text())]
    return found, window.done + windows.CONCURRENCY * windows.WARM_UP


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", type=int, default=4)
    parser.add_argument("--kib", type=int, default=1, help="size of a request")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--functions", type=int, default=20, help="to be listed")
    arguments = parser.parse_args()
    found, requests = measure(arguments.backends, 1024 * arguments.kib, arguments.seconds)
    print(table(found, requests, arguments.functions))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        _, _, into, *sys.argv[1:] = sys.argv
        sys.path.insert(0, str(ROOT))
        serve(Path(into))
    else:
        main()
