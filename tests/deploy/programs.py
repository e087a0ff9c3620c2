"""Running the programs that check what is deployed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def ran(*command: str | Path, timeout_s: float = 60.0) -> tuple[int, str]:
    """Exit status, and everything that a program said, from the repository's root."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout_s, check=False, cwd=ROOT
    )
    return done.returncode, done.stdout + done.stderr


def beside_python(name: str) -> Path:
    """A program that the tests' own environment holds."""
    return Path(sys.executable).parent / name
