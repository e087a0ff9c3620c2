"""CPU per request and per streamed chunk: Motley beside nginx, its peers and no gateway, one run.

A relay that does nothing but relay shows how much of it is Python's, whatever Motley did.

All of them run at once, on one core, and all but the one that is measured are stopped; engines and
client have another core. Each load goes through all gateways, in an order drawn anew, before the
next load, and everything is done in several rounds: ratios are taken within a round, and the table
says how sure they are. Figures are CPU microseconds of all the gateway's processes; for ``direct``
they are those of the engines. Compare ratios within a run, not numbers between machines.

``--peers`` installs those that PyPI has and runs them too: in turn, which is the least that they
can do, and as ``NAME:cache_aware`` by the rule that they have unless told otherwise, in three
rounds. One that does not start here is named under the table. ``--beside DIR`` measures the Motley
of another checkout as well. Nearly twelve minutes with three peers, each with both rules.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parent))

import peers
import windows
from paired import Ratio, Round, Together, middle, percentile_of, ratio
from targets import BARE, Target, bare, free_ports, motley, nginx, process

TARGET_CORE, LOAD_CORE = 0, (os.cpu_count() or 2) - 1
TOKENS, RATE_PER_S = 65, 50.0
OPEN_S = 1.0
"""How long a window is: as long as the period of a gateway's chores."""
BEGIN_S = 0.25
PER_S = 100.0
SETTLE_S = 0.12
"""After a gateway goes on: timers that came due meanwhile are served at once."""
DIRECT = "direct"
"""No gateway: nothing is compared with it, so ..."""
DIRECT_ROUNDS = 2
ASIDE_ROUNDS = 3
"""Of a peer that is measured with another rule already."""
SLOW = "litellm"
MOST_SLOW_STREAMS = 64
"""It cannot carry more."""
WARM_UP_S = 2.5
"""Motley learns from each of the first 100 answers of a backend, which is no steady state."""

Start = Callable[[], AbstractContextManager[Target | None]]
Samples = dict[str, dict[str, list[Round]]]
"""By gateway and load, a figure or the latencies of each round."""
PACED = "paced"


def main() -> None:
    arguments = _arguments()
    os.sched_setaffinity(0, {LOAD_CORE})
    if arguments.peers:
        peers.install(arguments.peers)
    gc.disable()  # a pause of the client's would pass for the gateway's
    with ExitStack() as running:
        direct = running.enter_context(engines(max(4, *arguments.backends)))
        direct.idle_mb = direct.rss_mb()
        targets, missing = _start_all(direct, arguments, running)
        bench = Bench([direct, *targets], arguments)
        bench.run()
    print(bench.table())
    for name, why in missing.items():
        print(f"\nNot measured: {name}, {why}.")


class Engines(Target):
    """The mock engines: the target that has no gateway in front."""

    ports: list[int]


@contextmanager
def engines(count: int) -> Iterator[Engines]:
    ports = free_ports(count)
    script = Path(__file__).parent / "mock_engines.py"
    command = [sys.executable, str(script), ",".join(map(str, ports)), str(TOKENS)]
    with process([*command, str(RATE_PER_S)], LOAD_CORE, ports[0]) as pid:
        direct = Engines(DIRECT, ports[0], pid)
        direct.ports = ports
        yield direct


def _start_all(
    direct: Engines, arguments: argparse.Namespace, running: ExitStack
) -> tuple[list[Target], dict[str, str]]:
    """Start every gateway that can be had here, and stop it until it is measured."""
    targets: list[Target] = []
    missing: dict[str, str] = {}
    for name, start in _contenders(direct, arguments).items():
        try:
            target = running.enter_context(start())
        except SystemExit as why:
            missing[name] = "which did not start here"
            print(f"{name}: {why}", file=sys.stderr, flush=True)
            continue
        if target is None:
            missing[name] = "which is not installed"
            continue
        target.name = name
        time.sleep(SETTLE_S)
        target.idle_mb = target.rss_mb()
        uvloop.run(windows.requests(target.port, 1024, seconds=WARM_UP_S, cpu=target.cpu_s))
        target.stop()
        targets.append(target)
    return targets, missing


def _contenders(direct: Engines, arguments: argparse.Namespace) -> dict[str, Start]:
    four = direct.ports[:4]
    starts: dict[str, Start] = {
        "nginx": lambda: nginx(four, TARGET_CORE),
        BARE: lambda: bare(four, TARGET_CORE),
    }
    if arguments.only_motley:
        starts.clear()
    for policy in arguments.policy:
        for count in arguments.backends:
            ports = direct.ports[:count]
            name = f"motley ({policy}, {count} backends)"
            starts[name] = partial(motley, ports, TARGET_CORE, policy)
            for folder in arguments.beside:
                starts[f"{name} of {folder}"] = partial(
                    motley, ports, TARGET_CORE, policy, Path(folder)
                )
    for name in arguments.peers:
        starts[name] = partial(peers.running, name, four, TARGET_CORE)
    return starts


class Bench:
    """Rounds of loads over all targets, and what they say.

    Args:
        targets: stopped, but for the engines.
        arguments: of the command line.
    """

    def __init__(self, targets: list[Target], arguments: argparse.Namespace) -> None:
        self._targets = targets
        self._arguments = arguments
        self._samples: Samples = {target.name: {} for target in targets}
        self._errors = {target.name: 0 for target in targets}
        self._rng = random.Random(arguments.seed)

    def run(self) -> None:
        """Everything, in an order drawn anew for every load of every round."""
        for turn in range(self._arguments.rounds):
            for load in self._loads():
                for target in self._rng.sample(self._targets, len(self._targets)):
                    if turn < self._rounds_of(target.name):
                        self._measure(target, load)
                self._tell(turn, load)

    def _rounds_of(self, name: str) -> int:
        if name == DIRECT:
            return DIRECT_ROUNDS
        return ASIDE_ROUNDS if ":" in name else int(self._arguments.rounds)

    def _loads(self) -> list[str]:
        chunks = [f"chunk, {n}" for n in self._arguments.streams]
        loads = {"request": ["1 KiB", "16 KiB"], "chunk": chunks, PACED: [PACED]}
        return [load for kind in self._arguments.loads for load in loads[kind]]

    def _measure(self, target: Target, load: str) -> None:
        if target.name != DIRECT:
            target.go_on()
        time.sleep(SETTLE_S)
        window = uvloop.run(self._window(target, load))
        self._errors[target.name] += window.errors
        figure = window.latencies_s if load == PACED else window.cpu_us_each
        self._samples[target.name].setdefault(load, []).append(figure)
        gc.collect()
        if target.name != DIRECT:
            target.stop()

    async def _window(self, target: Target, load: str) -> windows.Window:
        if load == PACED:
            return await windows.paced(
                target.port, 1024, per_s=PER_S, seconds=self._arguments.paced_s
            )
        number = int(load.split()[-1 if load.startswith("chunk") else 0])
        if not load.startswith("chunk"):
            return await windows.requests(
                target.port, 1024 * number, seconds=OPEN_S, cpu=target.cpu_s
            )
        if target.name == SLOW and number > MOST_SLOW_STREAMS:
            return windows.Window(cpu_s=math.nan)
        times = {"begin_s": BEGIN_S, "seconds": OPEN_S}
        return await windows.streams(
            target.port, count=number, tokens=TOKENS, cpu=target.cpu_s, **times
        )

    def _tell(self, turn: int, load: str) -> None:
        for name, samples in self._samples.items():
            if load in samples:
                last = samples[load][-1]
                if not isinstance(last, float):
                    last = 1e6 * percentile_of(50)([last])
                print(f"{turn} {load} {name}: {last:.1f}", file=sys.stderr, flush=True)

    # The table

    def table(self) -> str:
        """For README: figures, and ratios with their intervals."""
        columns = self._columns()
        lines = [f"| CPU us per | {' | '.join(columns)} | idle MB | errors |"]
        lines.append("|---|" + "--:|" * (len(columns) + 2))
        for target in self._targets:
            told = f"**{target.name}**" if target.name.startswith("motley") else target.name
            cells = [self._cell(target.name, *column) for column in columns.values()]
            lines.append(
                f"| {told} | {' | '.join(cells)} | {target.idle_mb:.1f} | "
                f"{self._errors[target.name]} |"
            )
        return "\n".join([*lines, *self._beside_the_floor(columns)])

    def _columns(self) -> dict[str, tuple[str, Together]]:
        columns: dict[str, tuple[str, Together]] = {}
        for load in self._loads():
            if load.endswith("KiB"):
                columns[f"request, {load}"] = load, middle
            elif load != PACED:
                columns[f"{load} streams"] = load, middle
        for percent in (50, 99) if PACED in self._loads() else ():
            columns[f"p{percent} at {PER_S:.0f}/s, us"] = PACED, percentile_of(percent)
        return columns

    def _cell(self, name: str, load: str, together: Together) -> str:
        figure = together(self._samples[name][load]) * (1e6 if load == PACED else 1.0)
        if math.isnan(figure):
            return "-"
        told = f"{figure:,.0f}" if figure >= 100 else f"{figure:.1f}"
        against = self._floor()
        if name in (DIRECT, against):
            return told
        return f"{told} ({self._ratio(name, against, load, together)})"

    def _ratio(self, name: str, against: str, load: str, together: Together) -> Ratio:
        ours, theirs = self._samples[name][load], self._samples[against][load]
        return ratio(ours, theirs, together, seed=self._arguments.seed)

    def _floor(self) -> str:
        for name in ("vllm-router", "nginx"):
            if name in self._samples:
                return name
        return next(name for name in self._samples if name != DIRECT)

    def _beside_the_floor(self, columns: dict[str, tuple[str, Together]]) -> list[str]:
        """Motley against those that do nothing but relay, and against its other checkouts."""
        lines = []
        ours = next(name for name in self._samples if name.startswith("motley"))
        others = [name for name in self._samples if name.startswith(f"{ours} of ")]
        for name in (*(n for n in ("nginx", BARE) if n in self._samples), *others):
            told = "; ".join(
                f"{column}: {self._ratio(ours, name, *of)}" for column, of in columns.items()
            )
            lines.append(f"\n{ours} over {name}: {told}.")
        return lines


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0, help="of the orders and the intervals")
    kinds = ("request", "chunk", PACED)
    parser.add_argument("--loads", nargs="+", default=kinds, choices=kinds)
    parser.add_argument("--streams", nargs="+", type=int, default=[64, 256])
    parser.add_argument("--paced-s", type=float, default=3.5, help="fewer requests have no P99")
    parser.add_argument("--policy", nargs="+", default=["motley"])
    parser.add_argument("--backends", nargs="+", type=int, default=[4])
    parser.add_argument("--peers", nargs="*", default=[], choices=peers.names())
    parser.add_argument(
        "--beside", nargs="*", default=[], metavar="DIR", help="other checkouts of Motley"
    )
    parser.add_argument("--only-motley", action="store_true", help="no nginx, no bare relay")
    return parser.parse_args()


if __name__ == "__main__":
    main()
