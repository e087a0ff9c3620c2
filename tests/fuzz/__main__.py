"""``python -m tests.fuzz [--seconds N] [TARGET...]``: atheris on each target, a process each.

Exit status 1 if one of them found something; the input that did it is printed as Python bytes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

CHILD = "--child"


def child(name: str, seconds: int, folder: str) -> None:
    """Fuzz in this process; libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["router", "telemetry", "simulator"]):
        from tests.fuzz.targets import TARGETS, seeds

    corpus = Path(folder, "corpus")
    corpus.mkdir()
    for number, seed in enumerate(seeds(name)):
        (corpus / str(number)).write_bytes(seed)
    flags = [f"-max_total_time={seconds}", "-max_len=4096", "-timeout=20", "-rss_limit_mb=2048"]
    flags += [f"-artifact_prefix={folder}/", "-print_final_stats=1", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], TARGETS[name].run)
    atheris.Fuzz()


def fuzz(name: str, seconds: int) -> tuple[bool, str]:
    """Whether nothing was found, and what libFuzzer said."""
    with tempfile.TemporaryDirectory(prefix="motley-fuzz-") as folder:
        command = [sys.executable, "-m", "tests.fuzz", CHILD, name, str(seconds), folder]
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds + 120, check=False
        )
        told = ran.stdout + ran.stderr
        found = [p for p in Path(folder).iterdir() if p.is_file()]
        told += "".join(f"\n{path.name}: {path.read_bytes()!r}" for path in found)
        return ran.returncode == 0 and not found, told


def runs_of(told: str) -> str:
    """How many inputs were tried."""
    counted = [x.split()[-1] for x in told.splitlines() if "stat::number_of_executed_units" in x]
    return counted[0] if counted else "?"


def main() -> int:
    if sys.argv[1:2] == [CHILD]:
        child(sys.argv[2], int(sys.argv[3]), sys.argv[4])
        return 0
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of: {', '.join(TARGETS)}")
    options = parser.parse_args()
    bad = 0
    for name in options.targets or TARGETS:
        fine, told = fuzz(name, options.seconds)
        print(f"{name}: {runs_of(told)} inputs, {'nothing found' if fine else 'FOUND'}", flush=True)
        if not fine:
            bad += 1
            print(told[-4000:])
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
