"""A mixed fleet on one real GPU behind the real gateway: ``python -m benchmarks.gpu.mixed TRACE``.

Engines of unequal speed (``cards``) are profiled while all of them are busy; then ``motley serve``
stands in front of them with one policy after the other, each time from its first request on, and
gets the same arrivals: a slice of the trace, faster, with lengths scaled. Motley starts from a
belief that is wrong on purpose, ``nginx-least-conn`` from what was measured. Everything found is
in one JSON file, written anew after every run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.cards import FLEETS, Card, Engines, await_health, running, started
from benchmarks.gpu.drive import Asked, closed_loop, open_loop
from benchmarks.gpu.fit_iterations import errors, fit, pace, scaled
from benchmarks.gpu.mixed_plan import (
    ALONE,
    BELIEVED,
    GATEWAY_PORT,
    GIVE_UP_S,
    MODEL,
    TRUE,
    Part,
    Slice,
    fleet_file,
    summary,
)
from router.perf.measured import MeasuredCost
from simulator.engine_server.loops import run as run_loop
from simulator.traces.read import load_trace

PHASES = ((0.01, 0.15), (0.15, 0.15), (0.5, 0.25), (1.0, 0.45))
"""Of the profile: the share of its seats that each engine has filled, and for which share of the
time. The last tells the capacity."""
KEPT = 5
"""One iteration in so many is kept of each run, to look at."""
AROUND_S = 8.0
"""Starting a gateway and stopping it."""


class Experiment:
    """One fleet, running; what is found goes to ``out``."""

    def __init__(
        self, cards: Sequence[Card], engines: Engines, trace: Any, part: Slice, out: Path
    ) -> None:
        self.cards, self.engines = cards, engines
        self.trace, self.slice, self.out = trace, part, out
        self.costs: dict[str, MeasuredCost] = {}
        self.capacity_per_s = 0.0
        self.found: dict[str, Any] = {"runs": []}

    def note(self, **more: Any) -> None:
        self.found.update(more)
        (self.out / "mixed.json").write_text(json.dumps(self.found, indent=None) + "\n")

    def profile(self, phases: Sequence[tuple[float, float]]) -> None:
        """Keep all engines busy at once; phases of (share of their seats, seconds)."""
        load = self.slice.asked(self.trace, 400, 1.0)
        rows: dict[str, list[list[float]]] = {card.name: [] for card in self.cards}
        last: dict[str, list[list[float]]] = {}
        processors: dict[str, int] = {}
        for share, seconds in phases:
            self.iterations()
            run_loop(self._busy(load, share, seconds))
            last, processors = self.iterations()
            for name, new in last.items():
                rows[name] += new
        self._fit(rows)
        mean_out = float(np.mean([asked.output_tokens for asked in load]))
        told = []
        for card in self.cards:
            cost = self.costs[card.gpu]
            apart = 100.0 * np.abs(errors(cost, rows[card.name]))
            rate = _requests_per_s(last[card.name], mean_out)
            self.capacity_per_s += rate
            told.append(
                asdict(card)
                | {"processors": processors[card.name], "iterations": len(rows[card.name])}
                | {"capacity_per_s": rate, "error_p50": float(np.median(apart))}
                | {"error_p90": float(np.percentile(apart, 90))}
            )
        self.note(
            cards=told,
            costs={gpu: asdict(cost) for gpu, cost in self.costs.items()},
            capacity_per_s=self.capacity_per_s,
        )
        (self.out / "profile.json").write_text(json.dumps(rows))
        for one in told:
            print(json.dumps(one), flush=True)

    def _fit(self, rows: dict[str, list[list[float]]]) -> None:
        for gpu in dict.fromkeys(card.gpu for card in self.cards):
            mine = [r for card in self.cards if card.gpu == gpu for r in rows[card.name]]
            self.costs[gpu] = fit(mine[:: -(-len(mine) // 3000)])

    async def _busy(self, load: Sequence[Asked], share: float, seconds: float) -> None:
        await asyncio.gather(
            *(
                closed_loop(
                    self.engines.url(number),
                    MODEL,
                    load[37 * number :],
                    users=max(1, round(share * card.max_seqs)),
                    seconds=seconds,
                    seed=number,
                )
                for number, card in enumerate(self.cards)
            )
        )

    def iterations(self) -> tuple[dict[str, list[list[float]]], dict[str, int]]:
        """What each engine logged since the last time, and its processors."""
        rows, processors = {}, {}
        for number, card in enumerate(self.cards):
            told = _get(f"{self.engines.url(number)}/iterations")
            rows[card.name], processors[card.name] = told["rows"], told["processors"]
        return rows, processors

    def run(self, part: Part, policy: str) -> None:
        """One policy at one load."""
        per_s = part.load * self.capacity_per_s
        load = self.slice.asked(self.trace, round(per_s * part.seconds), per_s)
        url = f"http://127.0.0.1:{GATEWAY_PORT}"
        self.iterations()
        log = self.out / f"gateway-{policy}-{part.load:g}.log"
        with started(self._gateway(policy), log) as gateway:
            await_health(f"{url}/ready", gateway, 30.0)
            samples = run_loop(open_loop(url, MODEL, load, give_up_s=GIVE_UP_S))
            end_s = time.monotonic()
            beliefs = _get(f"{url}/debug/beliefs")["backends"]
        logged, _ = self.iterations()
        row = summary(policy, part.load, samples, end_s, [card.name for card in self.cards])
        row |= {"requests_per_s": round(per_s, 3), "seconds": part.seconds}
        row["learned"] = {
            name: [round(told["correction"][phase], 3) for phase in ("prefill", "decode")]
            for name, told in beliefs.items()
        }
        row |= self._seen(logged, samples[0].due_s - load[0].at_s, part.seconds)
        kept = {name: rows[::KEPT] for name, rows in logged.items()}
        (self.out / f"iterations-{policy}-{part.load:g}.json").write_text(json.dumps(kept))
        self.found["runs"].append(row)
        self.note()
        print(_line(row), flush=True)

    def _gateway(self, policy: str) -> list[str]:
        """The command that serves this policy; writes its fleet file."""
        cards = self.cards[:1] if policy == ALONE else self.cards
        wrong = {gpu: scaled(cost, BELIEVED[gpu]) for gpu, cost in self.costs.items()}
        costs = self.costs if policy in TRUE else wrong
        path = self.out / "fleet.yaml"
        path.write_text(fleet_file(cards, self.engines, costs), "utf-8")
        name = "least-request" if policy == ALONE else policy
        command = [sys.executable, "-c", "from router.cli.main import main; main()", "serve"]
        return [*command, "--config", str(path), "--policy", name]

    def _seen(
        self, logged: dict[str, list[list[float]]], begin_s: float, seconds: float
    ) -> dict[str, Any]:
        """Of each engine while requests came, the share of the time that it computed; of those
        that did, how long iterations took over how long they take by the profile."""
        busy, paces = {}, {}
        for card in self.cards:
            rows = logged[card.name]
            inside = [r[1] for r in rows if begin_s <= r[0] < begin_s + seconds]
            busy[card.name] = round(sum(inside) / seconds, 3)
            if rows:
                paces[card.name] = round(pace(self.costs[card.gpu], rows), 3)
        return {"busy": busy, "pace": paces}


def _requests_per_s(rows: Sequence[Sequence[float]], mean_out: float) -> float:
    """What an engine completes while it is full, from the tokens of its iterations' second half."""
    half = rows[len(rows) // 2 :]
    tokens = sum(r[3] for r in half)
    return float(tokens / (half[-1][0] + half[-1][1] - half[0][0]) / mean_out)


def _line(row: dict[str, Any]) -> str:
    cells = [f"{row['policy']:18s} load {row['load']:g}, {row['requests_per_s']:.1f}/s"]
    for name in ("ttft_ms", "tpot_ms", "e2e_ms"):
        p50, p99 = np.percentile(row[name], (50, 99))
        cells.append(f"{name} {p50:.0f} / {p99:.0f}")
    cells.append(f"ended {row['ended'].count('1')} of {len(row['ended'])} {row['failed']}")
    cells.append(" ".join(f"{name} {share:.2f}" for name, share in row["busy"].items()))
    served = [row["backend"].count(str(k)) for k in range(4)]
    return f"{'; '.join(cells)}; served {served}; late {row['late_ms']} ms"


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.load(answer)


def machine(device: str) -> dict[str, Any]:
    """Where this runs."""
    about = {"command": "python -m benchmarks.gpu.mixed " + " ".join(sys.argv[1:])}
    about["date"] = datetime.now(UTC).isoformat(timespec="seconds")
    if device == "cpu":
        return about
    import torch  # noqa: PLC0415

    from benchmarks.gpu.measure import sensors  # noqa: PLC0415

    told = {"torch": torch.__version__, "python": sys.version.split()[0], "sensors": sensors()}
    return about | told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trace", type=Path)
    parser.add_argument("--part", type=Part.parse, action="append", required=True)
    parser.add_argument("--fleet", choices=FLEETS, default="60-20-10-10")
    parser.add_argument("--shape", default=MODEL)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--length-scale", type=float, default=0.5)
    parser.add_argument("--first", type=int, default=0, help="request of the trace to start at")
    parser.add_argument("--profile-s", type=float, default=18.0)
    parser.add_argument("--until-s", type=float, default=1e9, help="start no run that ends later")
    parser.add_argument("--seat-tokens", type=int, default=2048)
    parser.add_argument("--chunk-tokens", type=int, default=2048)
    parser.add_argument("--seats", type=float, default=1.0, help="of what the fleet says")
    parser.add_argument("--out", type=Path, default=Path("out/mixed"))
    args = parser.parse_args()
    began_s = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    cards = [replace(c, max_seqs=round(args.seats * c.max_seqs)) for c in FLEETS[args.fleet]]
    engines = Engines(
        args.shape, args.device, args.seat_tokens, args.chunk_tokens, 18_801, args.out
    )
    room = args.seat_tokens - 512
    part = Slice(args.first, args.length_scale, room - 16, 500)
    experiment = Experiment(cards, engines, load_trace(args.trace)[0], part, args.out)
    experiment.note(machine=machine(args.device), slice=asdict(part), trace=args.trace.name)
    with running(cards, engines):
        experiment.note(ready_s=time.monotonic() - began_s)
        print(f"ready after {time.monotonic() - began_s:.1f} s", flush=True)
        experiment.profile([(share, part * args.profile_s) for share, part in PHASES])
        for asked in args.part:
            for policy in asked.policies:
                ends_s = time.monotonic() - began_s + asked.seconds + GIVE_UP_S + AROUND_S
                if ends_s < args.until_s:
                    experiment.run(asked, policy)
        if args.device == "cuda":
            experiment.note(after=machine(args.device)["sensors"])
    print(f"done after {time.monotonic() - began_s:.1f} s", flush=True)


if __name__ == "__main__":
    main()
