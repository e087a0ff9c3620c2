"""Reading one engine's metrics page: Motley's reader beside a full parse, as a ratio."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

sys.path.insert(0, str(Path(__file__).parent))

from pages import vllm_page

from telemetry.engine_metrics import parse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, help="a real scrape instead of the one made here")
    parser.add_argument("--engine", default="vllm")
    arguments = parser.parse_args()
    page = arguments.file.read_bytes() if arguments.file else vllm_page()
    lines = page.count(b"\n")
    ours = cpu_s(lambda: parse(page, arguments.engine, 0.0), 200)
    full = cpu_s(lambda: list(text_string_to_metric_families(page.decode())), 2)
    print(f"page: {lines} lines, {len(page) / 1024:.0f} KiB")
    print(f"signals only   {ours * 1e6:9.0f} us")
    print(f"full parse     {full * 1e6:9.0f} us    {full / ours:.0f} x")


def cpu_s(work: Callable[[], object], times: int) -> float:
    """CPU seconds of one call: the least of several rounds, as others use the machine too."""
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        for _ in range(times):
            work()
        best = min(best, (time.process_time() - start) / times)
    return best


if __name__ == "__main__":
    main()
