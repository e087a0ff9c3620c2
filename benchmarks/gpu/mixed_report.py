"""What the mixed fleet on a real GPU showed, and what the simulator says of the same.

``python -m benchmarks.gpu.mixed_report`` needs no GPU; ``--twin TRACE`` replays the arrivals of
every run through the simulator: engines as fast as they were measured while all of them were busy,
and the gateway's belief as wrong as it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from benchmarks.gpu.accuracy import DATA, GPU
from benchmarks.gpu.cards import Card, Engines
from benchmarks.gpu.drive import MAX_TOKENS
from benchmarks.gpu.fit_iterations import scaled
from benchmarks.gpu.mixed_plan import ALONE, BELIEVED, GIVE_UP_S, MODEL, TRUE, Slice, fleet_file
from benchmarks.gpu.serve import replica_of
from benchmarks.gpu.words import CoreOptions
from router.config.load import MotleyConfig, load_config
from router.domain.fleet import BackendSpec
from router.domain.protocols import PerfModel
from router.perf.measured import MeasuredCost
from simulator.options import ReplayOptions
from simulator.replica.build import make_replica
from simulator.replica.interface import Replica
from simulator.results import latencies
from simulator.run import run_policy
from simulator.traces.columns import Trace
from simulator.traces.read import load_trace
from simulator.traces.record import TraceRecord

NAMES = {
    "round-robin": "round robin",
    "least-request": "least request",
    "nginx-least-conn": "nginx `least_conn`, weights as measured",
    "motley": "**Motley**, belief wrong",
    ALONE: "the fast card alone",
}
SEAT_TOKENS, CHUNK_TOKENS = 2048, 2048
OFF = 0.03
"""About what the fit is off in the median: a simulation is no surer than this makes it."""

Times = NDArray[np.float64]
Found = dict[str, Times]


def data() -> dict[str, Any]:
    """What the run on the GPU found."""
    told: dict[str, Any] = json.loads((DATA / GPU / "mixed.json").read_text())
    return told


def measured(run: dict[str, Any]) -> Found:
    """Seconds of each request of a run; TPOT only where an answer ended."""
    tpot = np.array(run["tpot_ms"]) / 1e3
    return {
        "TTFT": np.array(run["ttft_ms"]) / 1e3,
        "TPOT": tpot[tpot > 0],
        "E2E": np.array(run["e2e_ms"]) / 1e3,
    }


def table(told: dict[str, Any] | None = None) -> str:
    """Markdown: every run, P50 and P99."""
    told = told or data()
    lines = [
        "| load | policy | TTFT P50 | P99 | TPOT P50 | P99 | E2E P50 | P99 | left | served by "
        "| pace |",
        "|--:|---|--:|--:|--:|--:|--:|--:|--:|---|--:|",
    ]
    for run in _in_order(told["runs"]):
        found, left = measured(run), run["ended"].count("0") / len(run["ended"])
        cells = []
        for name, times in found.items():
            p50, p99 = np.percentile(times, (50, 99))
            bound = "> " if left >= 0.01 and name != "TPOT" else ""
            cells += [_s(p50), bound + _s(p99)]
        served = [run["backend"].count(str(k)) for k in range(len(told["cards"]))]
        shares = " / ".join(f"{100 * n / max(1, sum(served)):.0f}" for n in served)
        told_of = f"{100 * left:.0f} % | {shares} | {run['pace']['fast']:.2f}"
        head = f"| {run['load']:g} | {NAMES[run['policy']]}"
        lines.append(f"{head} | {' | '.join(cells)} | {told_of} |")
    return "\n".join(lines)


def short_table(told: dict[str, Any] | None = None) -> str:
    """Markdown: P99 alone, of the two loads that everybody was given."""
    told = told or data()
    loads = sorted({r["load"] for r in told["runs"] if r["policy"] == "round-robin"})
    heads = [f"{name}, load {load:g}" for load in loads for name in ("TTFT", "TPOT", "E2E")]
    lines = [f"| P99, seconds | {' | '.join(heads)} |", "|---|" + "--:|" * len(heads)]
    for policy in [name for name in NAMES if name != ALONE]:
        cells = []
        for load in loads:
            run = next(r for r in told["runs"] if (r["load"], r["policy"]) == (load, policy))
            many = run["ended"].count("0") >= 0.01 * len(run["ended"])
            cells += [
                ("> " if many and name != "TPOT" else "") + _s(float(np.percentile(times, 99)))
                for name, times in measured(run).items()
            ]
        lines.append(f"| {NAMES[policy]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cards_table(told: dict[str, Any] | None = None) -> str:
    """Markdown: the engines."""
    told = told or data()
    lines = [
        "| engine | SMs | sequences | decode of 16 at 600 tokens | prompt of 600 | requests/s "
        "| off, median / P90 | told as | belief |",
        "|---|--:|--:|--:|--:|--:|--:|---|--:|",
    ]
    for card in told["cards"]:
        model = MeasuredCost(**told["costs"][card["gpu"]]).iteration_model()
        decode, prompt = model.iteration_s(0, 16, 9600.0), model.iteration_s(600, 0, 0.0, 180_000.0)
        lines.append(
            f"| {card['name']} | {card['processors']} | {card['max_seqs']} "
            f"| {1e3 * decode:.1f} ms | {1e3 * prompt:.0f} ms | {card['capacity_per_s']:.1f} "
            f"| {card['error_p50']:.0f} / {card['error_p90']:.0f} % "
            f"| {card['gpu']} | x {BELIEVED[card['gpu']]:g} |"
        )
    return "\n".join(lines)


def twin(told: dict[str, Any], run: dict[str, Any], trace: Trace) -> Found:
    """The same run in the simulator; requests are left when they were."""
    asked = Slice(**told["slice"]).asked(trace, len(run["ended"]), run["requests_per_s"])
    mine = Trace("mixed")
    for one in asked:
        lengths = one.prompt_tokens, one.output_tokens
        mine.append(TraceRecord(one.at_s, *lengths, model=MODEL, max_tokens=MAX_TOKENS))
    cards = [_card(card) for card in told["cards"]][: 1 if run["policy"] == ALONE else None]
    costs = {gpu: MeasuredCost(**cost) for gpu, cost in told["costs"].items()}
    config = _config(cards, costs, right=run["policy"] in TRUE)
    seats = {card.name: card.max_seqs for card in cards}

    def replica(spec: BackendSpec, _: PerfModel) -> Replica:
        options = CoreOptions(MODEL, "cpu", seats[spec.name], SEAT_TOKENS, CHUNK_TOKENS)
        engine = replace(replica_of(options), reserve_full_isl=False)
        return make_replica(engine, costs[spec.gpu].iteration_model(), exact=True)

    result = run_policy(
        mine,
        config,
        "least-request" if run["policy"] == ALONE else run["policy"],
        ReplayOptions(model_error=0.0),
        # What is made of this is the belief: the engines are built of what is true.
        truth_of=config.hardware.iteration_model,
        replica_of=replica,
    )
    said = latencies(result)
    age = asked[-1].at_s + GIVE_UP_S - np.array([one.at_s for one in asked])
    ended = said.e2e_s <= age
    return {
        "TTFT": np.fmin(said.ttft_s, age),
        "TPOT": said.tpot_s[ended & np.isfinite(said.tpot_s)],
        "E2E": np.fmin(said.e2e_s, age),
    }


def twin_table(trace: Trace, told: dict[str, Any] | None = None, times: int = 8) -> str:
    """Markdown: P99 as measured, and the range of the simulator's over costs ``OFF`` from the fit.

    Without the fast card alone: its cost was measured beside the others.
    """
    told = told or data()
    heads = [f"{name} P99" for name in ("TTFT", "TPOT", "E2E")]
    lines = [f"| load | policy | {' | '.join(heads)} |", "|--:|---|" + "--:|" * len(heads)]
    for run in _in_order(told["runs"]):
        if run["policy"] == ALONE:
            continue
        said = [p99s(twin(other, run, trace)) for other in _others(told, times)]
        cells = [
            f"{_s(real)}; {_s(min(sims))} to {_s(max(sims))}"
            for real, *sims in zip(p99s(measured(run)), *said, strict=True)
        ]
        head = f"| {run['load']:g} | {NAMES[run['policy']]}"
        lines.append(f"{head} | {' | '.join(cells)} |")
    return "\n".join(lines)


def p99s(found: Found) -> list[float]:
    """Seconds, of each metric."""
    return [float(np.percentile(times, 99)) for times in found.values()]


def _others(told: dict[str, Any], times: int) -> Iterator[dict[str, Any]]:
    """The same with each kind of engine a little faster or slower; the first as it was fitted."""
    rng = np.random.default_rng(0)
    yield told
    for _ in range(times - 1):
        costs = {
            gpu: asdict(scaled(MeasuredCost(**cost), float(np.exp(OFF * rng.standard_normal()))))
            for gpu, cost in told["costs"].items()
        }
        yield told | {"costs": costs}


def apart_table(trace: Trace, told: dict[str, Any] | None = None, count: int = 2000) -> str:
    """Markdown: in the simulator, whose cards share nothing: the fast one alone, then all."""
    told = told or data()
    loads = (0.2, 0.3, 0.45, 0.6)
    heads = [f"{name} P99, load {load:g}" for load in loads for name in ("TTFT", "E2E")]
    lines = [f"| simulated | {' | '.join(heads)} |", "|---|" + "--:|" * len(heads)]
    for policy in (ALONE, "nginx-least-conn", "motley"):
        cells = []
        for load in loads:
            run = {"policy": policy, "ended": "1" * count}
            run["requests_per_s"] = load * told["capacity_per_s"]
            ttft, _, e2e = p99s(twin(told, run, trace))
            cells += [_s(ttft), _s(e2e)]
        lines.append(f"| {NAMES[policy]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _in_order(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    order = list(NAMES)
    return sorted(runs, key=lambda run: (run["load"], order.index(run["policy"])))


def _card(told: dict[str, Any]) -> Card:
    return Card(told["name"], told["share"], told["gpu"], told["max_seqs"])


def _config(cards: Sequence[Card], costs: dict[str, MeasuredCost], *, right: bool) -> MotleyConfig:
    believed = {gpu: cost if right else scaled(cost, BELIEVED[gpu]) for gpu, cost in costs.items()}
    engines = Engines(MODEL, "cpu", SEAT_TOKENS, CHUNK_TOKENS, 1, Path())
    document: dict[str, Any] = yaml.safe_load(fleet_file(cards, engines, believed))
    return load_config(document)


def _s(seconds: float) -> str:
    return f"{seconds:.3g}"


def source() -> str:
    """Which machine, when."""
    told = data()["machine"]
    driver = told["sensors"].splitlines()[-1].split(",")[0]
    return f"NVIDIA H200, driver {driver}, PyTorch {told['torch']}, {told['date'][:10]}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--twin", type=Path, metavar="TRACE", help="replay it in the simulator")
    parser.add_argument("--short", action="store_true", help="only the P99s")
    args = parser.parse_args()
    if args.short:
        print(short_table())
        return
    print(source(), cards_table(), table(), sep="\n\n")
    if args.twin:
        trace = load_trace(args.twin)[0]
        print("", twin_table(trace), "", apart_table(trace), sep="\n")


if __name__ == "__main__":
    main()
