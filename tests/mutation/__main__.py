"""``python -m tests.mutation [--sample N] [--seed S] [--part K/M] [TARGET...]``

Draws N mutants from all targets, by their size, and runs each against the tests of its target, in
a child process that is forked with the libraries already loaded. With ``--part`` it runs only the
K-th of M parts of them, and adds to the score that ``--json`` names. Exit status 1 if one survives
that is not explained.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.abc
import importlib.util
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.mutation.explained import EXPLAINED
from tests.mutation.mutants import Mutant, mutants

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 180
HEAVY = (
    "numpy",
    "scipy.sparse",
    "hypothesis.stateful",
    "msgspec",
    "pytest",
    "pytest_asyncio",
    "yaml",
)


@dataclass(frozen=True, slots=True)
class Target:
    """What is mutated and who ought to notice, the quickest tests first."""

    files: tuple[str, ...]
    tests: tuple[str, ...]


TARGETS = {
    "dispatcher": Target(
        (
            *("router/dispatcher.py", "router/deciding.py"),
            *("router/class_dispatcher.py", "router/recalling.py"),
        ),
        (
            *("tests/router/test_dispatcher.py", "tests/router/test_dispatcher_queue.py"),
            *("tests/router/test_dispatcher_health.py", "tests/router/test_hedge.py"),
            *("tests/router/test_fallback.py", "tests/router/test_explain.py"),
            *("tests/router/test_presumed_first_token.py", "tests/router/test_class_dispatcher.py"),
            *("tests/router/test_decision_log.py", "tests/router/policies/test_trial.py"),
            *("tests/router/test_pairing.py", "tests/router/test_dispatcher_care.py"),
            "tests/properties/test_dispatcher_machine.py",
            "tests/properties/test_class_dispatcher_machine.py",
        ),
    ),
    "queue": Target(
        (
            *("router/queue/waiting_room.py", "router/queue/class_room.py", "router/queue/gate.py"),
            *("router/queue/caution.py", "router/queue/desk.py", "router/queue/yardstick.py"),
            *("router/queue/admission.py", "router/queue/glance.py"),
        ),
        (
            "tests/router/queue",
            *("tests/router/test_dispatcher_queue.py", "tests/router/test_class_dispatcher.py"),
            *("tests/router/test_dispatcher.py", "tests/properties/test_class_room_machine.py"),
            "tests/properties/test_class_dispatcher_machine.py",
            "tests/properties/test_dispatcher_machine.py",
        ),
    ),
    "health": Target(
        ("router/health/breaker.py",),
        (
            *("tests/router/health", "tests/router/test_dispatcher_health.py"),
            "tests/properties/test_models.py",
        ),
    ),
    "policies": Target(
        (
            *("router/policies/lane.py", "router/policies/lanes.py", "router/policies/ask.py"),
            *("router/policies/crowd.py", "router/policies/prefix_trust.py"),
            *("router/policies/tail_scale.py", "router/policies/motley_account.py"),
        ),
        (
            *("tests/router/policies/test_tail_scale.py", "tests/router/policies/test_motley.py"),
            *("tests/router/policies", "tests/router/test_dispatcher_queue.py"),
            "tests/simulator/test_long_prompts.py",
        ),
    ),
    "learned": Target(
        (
            *("router/gateway/memory.py", "telemetry/learned.py", "telemetry/learned_file.py"),
            "telemetry/speeds.py",
        ),
        (
            *("tests/telemetry/test_learned_file.py", "tests/telemetry/test_speeds.py"),
            *("tests/telemetry/test_learned.py", "tests/router/gateway/test_memory.py"),
        ),
    ),
    "streams": Target(
        ("router/gateway/chunk_pipe.py", "router/gateway/relaying.py"),
        (
            *("tests/router/gateway/test_chunk_pipe.py", "tests/router/gateway/test_relay.py"),
            *(
                "tests/router/gateway/test_timeouts.py",
                "tests/router/gateway/test_back_pressure.py",
            ),
            *("tests/router/gateway/test_disconnect.py", "tests/router/gateway/test_books.py"),
        ),
    ),
    "constraints": Target(
        ("solver/constraints.py",),
        (
            "tests/solver/test_model.py",
            "tests/solver/test_brute_force.py",
            "tests/solver/test_plan.py",
            "tests/solver/test_stock.py",
            "tests/solver/test_place.py",
            "tests/solver/test_search.py",
            "tests/solver/test_prices.py",
        ),
    ),
}


class _Wrong(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module's wrong version to whoever imports it."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant
        self._name = mutant.path.removesuffix(".py").replace("/", ".")

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self._name:
            return None
        return importlib.util.spec_from_loader(name, self, origin=str(ROOT / self._mutant.path))

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(ROOT / self._mutant.path)
        exec(compile(self._mutant.source, module.__file__, "exec"), module.__dict__)


def notices(mutant: Mutant, tests: Sequence[str]) -> bool:
    """Whether a test fails (or never ends) on this mutant."""
    child = os.fork()
    if child == 0:
        signal.alarm(PATIENCE_S)
        os.setsid()
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        sys.meta_path.insert(0, _Wrong(mutant))
        import pytest

        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--timeout=60", *tests])
        os._exit(0 if code == 0 else 1)
    _, status = os.waitpid(child, 0)
    return status != 0


def drawn(names: Sequence[str], sample: int, seed: int) -> list[tuple[str, Mutant]]:
    """The sample: every mutant of every file is as likely."""
    found = [
        (name, mutant)
        for name in names
        for path in TARGETS[name].files
        for mutant in mutants(path, (ROOT / path).read_text())
    ]
    rng = random.Random(seed)
    return found if sample >= len(found) else rng.sample(found, sample)


def part(text: str) -> tuple[int, int]:
    """``2/5`` as (2, 5)."""
    number, _, of = text.partition("/")
    found = int(number), int(of)
    if not 1 <= found[0] <= found[1]:
        raise argparse.ArgumentTypeError(f"{text!r} is no part: write 2/5 for the second of five")
    return found


def together(score: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """The score of two parts of one sample."""
    summed = {n: score[n] + before[n] for n in ("seconds", "tried", "explained", "survived")}
    shares: dict[str, str] = dict(before["by_target"])
    for name, share in score["by_target"].items():
        parts = [map(int, one.split("/")) for one in (share, shares.get(name, "0/0"))]
        shares[name] = "/".join(str(sum(figures)) for figures in zip(*parts, strict=True))
    return {**score, **summed, "by_target": shares}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="write the score there, too")
    parser.add_argument("--part", type=part, default=(1, 1), metavar="K/M", help="of the sample")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of: {', '.join(TARGETS)}")
    options = parser.parse_args()
    os.chdir(ROOT)
    for module in HEAVY:
        importlib.import_module(module)
    began_s, tried, killed, explained = time.monotonic(), Counter[str](), Counter[str](), 0
    survivors = []
    number, of = options.part
    sample = drawn(options.targets or list(TARGETS), options.sample, options.seed)
    for name, mutant in sample[number - 1 :: of]:
        tried[name] += 1
        if notices(mutant, TARGETS[name].tests):
            killed[name] += 1
            continue
        reason = EXPLAINED.get(mutant.key)
        explained += reason is not None
        killed[name] += reason is not None
        if reason is None:
            survivors.append(mutant)
        told = f"explained: {reason}" if reason else "SURVIVED"
        print(
            f"{mutant.path}:{mutant.line}: {mutant.what}: {mutant.before}\n    {told}", flush=True
        )
    score = {
        "seed": options.seed,
        "seconds": round(time.monotonic() - began_s),
        "tried": sum(tried.values()),
        "explained": explained,
        "survived": len(survivors),
        "by_target": {name: f"{killed[name]}/{tried[name]}" for name in tried},
    }
    print(json.dumps(score))
    if options.json:
        file = Path(options.json)
        if number > 1 and file.exists():
            score = together(score, json.loads(file.read_text()))
        file.write_text(json.dumps(score) + "\n")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
