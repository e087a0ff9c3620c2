"""Ask the advisory service about every pinned dependency: ``python -m tests.security.advisories``.

Exit status 0 if it knows all of them and holds nothing against any, 1 if it does, and 75 (try
again later) if it could not be asked: then nothing is known, which is not the same as good.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BEFORE = ("--disable-pip", "--require-hashes", "-r", "constraints.txt")
NOT_ASKED = 75


def judged(dependencies: Sequence[Mapping[str, Any]], said: str) -> tuple[int, list[str]]:
    """Exit status, and what to say.

    Args:
        dependencies: pip-audit's own, each with its ``vulns`` or a ``skip_reason``.
        said: the last line of what it said of itself, for whoever wonders why it answered nothing.
    """
    known = [one for one in dependencies if "skip_reason" not in one]
    if not known:
        return NOT_ASKED, [
            f"The advisory service cannot be reached from here ({said or 'it said nothing'}), so "
            "what it holds against the dependencies is not known; where it can be, run: "
            f".venv/bin/pip-audit --strict {' '.join(BEFORE)}"
        ]
    lines = [
        f"{one['name']} {one['version']}: {found['id']}, mended in "
        f"{', '.join(found['fix_versions']) or 'no version yet'}"
        for one in known
        for found in one["vulns"]
    ]
    lines += [f"{one['name']}: {one['skip_reason']}" for one in dependencies if one not in known]
    if lines:
        return 1, lines
    return 0, [f"The advisory service holds nothing against any of {len(known)} dependencies."]


def main() -> int:
    program = str(Path(sys.executable).parent / "pip-audit")
    done = subprocess.run(
        [program, "--format", "json", "--progress-spinner", "off", *BEFORE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        dependencies = json.loads(done.stdout)["dependencies"]
    except ValueError:  # it stopped before it had anything to tell
        dependencies = []
    heard = [one["skip_reason"] for one in dependencies if "skip_reason" in one]
    heard += done.stderr.strip().splitlines()
    status, lines = judged(dependencies, heard[0] if heard else "")
    print("\n".join(lines))
    return status


if __name__ == "__main__":
    sys.exit(main())
