"""The mutator makes what it says, and a test that looks notices."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.mutation.__main__ import ROOT, TARGETS, together
from tests.mutation.explained import EXPLAINED
from tests.mutation.mutants import mutants

SOURCE = '''
def f(a, b):
    """Doc."""
    if a < b and not b:
        log(a)
        return min(a, 1)
    return a + b
'''


def test_every_kind_of_change() -> None:
    found = {(m.line, m.what) for m in mutants("x.py", SOURCE)}
    assert found == {
        (4, "if -> if not"),
        (4, "And -> Or"),
        (4, "Lt -> LtE"),
        (4, "not x -> x"),
        (5, "call left out"),
        (6, "min -> max"),
        (6, "1 -> 2"),
        (7, "Add -> Sub"),
    }
    changed = {m.what: m.source for m in mutants("x.py", SOURCE)}
    assert "if a <= b and (not b):" in changed["Lt -> LtE"]
    assert "log(a)" not in changed["call left out"]
    assert "return a - b" in changed["Add -> Sub"]


def test_mutants_are_noticed() -> None:
    command = [sys.executable, "-m", "tests.mutation", "--sample", "3", "health"]
    ran = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110
    )
    score = json.loads(ran.stdout.splitlines()[-1])
    assert (score["tried"], score["survived"]) == (3, 0), ran.stdout


def test_what_is_named_exists() -> None:
    for target in TARGETS.values():
        for name in (*target.files, *target.tests):
            assert (ROOT / name).exists(), name
    for path, line, _ in EXPLAINED:
        lines = [known.strip() for known in (ROOT / path).read_text().splitlines()]
        assert line in lines, f"{path}: {line!r} is gone; so is the need to explain it"


def test_parts_of_a_sample_add_up() -> None:
    one = {"seed": 1, "seconds": 2, "tried": 3, "explained": 1, "survived": 0}
    first, second = one | {"by_target": {"queue": "2/3"}}, one | {"by_target": {"health": "1/3"}}
    both = together(second, first)
    assert (both["seed"], both["tried"], both["explained"]) == (1, 6, 2)
    assert both["by_target"] == {"queue": "2/3", "health": "1/3"}
    assert together(second, both)["by_target"]["health"] == "2/6"
