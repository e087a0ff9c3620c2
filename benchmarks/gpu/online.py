"""Served traffic of a real GPU, as a gateway would have seen it.

``python -m benchmarks.gpu.online`` needs no GPU. The requests under ``data`` go through Motley's
dispatcher at the times they really had, and its learner is told what a gateway would tell it. It
starts at the catalogue's prior and at priors made wrong; right is what the engine's own iterations
say. Then the simulated twin: the same arrivals through the simulator, with the engine model fitted
to the grid.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.gpu.accuracy import (
    GPU,
    MODELS,
    fitted,
    grid,
    iteration_model,
    rates,
    requests,
    shipped,
    traffic,
)
from router.config.build import build_dispatcher
from router.config.load import MotleyConfig, load_config
from router.domain.decision import Assign
from router.domain.request import LengthForecast, Request
from router.domain.state import LinearCost
from router.perf.length import ConstantLengthPredictor
from router.perf.measurements import Measurement
from simulator.options import ReplayOptions
from simulator.replica.build import make_replica
from simulator.replica.config import replica_config
from simulator.results import latencies
from simulator.run import run_policy
from simulator.traces.columns import Trace
from simulator.traces.record import TraceRecord
from telemetry.calibration import Calibration
from telemetry.feedback import Feedback
from telemetry.sightings import EngineShape

WRONG = (1.0, 1.5, 1 / 1.5)
WITHIN, IN_A_ROW = 0.10, 10
SHAPE = EngineShape(chunk_tokens=2048, mixed=True, ahead=0)


@dataclass(frozen=True)
class Learned:
    """How the learner fared with one prior and one phase.

    Attributes:
        requests: after which it was within 10 % and stayed so for ten in a row; ``None``: never.
        error: median of its relative error in the second half.
    """

    requests: int | None
    error: float


def true_factors(prior: LinearCost, iterations: Sequence[Measurement]) -> tuple[float, float]:
    """What a prior has to be multiplied with, (prefill, decode), by the engine's own iterations."""
    rows = np.array(
        [
            (t.prefill_tokens, t.decode_seqs, t.context_tokens, t.prefill_pairs, m.time_s)
            for m in iterations
            for t in m.terms
        ]
    )
    prompts, seqs, context, pairs, times = rows.T
    decode_s = prior.step_s + prior.seq_s * seqs + prior.context_s * context
    alone = prompts == 0
    decode = times[alone].sum() / decode_s[alone].sum()
    prefill_s = prior.prefill_s * prompts + prior.pair_s * pairs
    beside_s = (times - decode * decode_s)[~alone].sum()
    return float(beside_s / prefill_s.sum()), float(decode)


def learn(model: str, part: int, prior: LinearCost) -> list[tuple[float, float]]:
    """(prefill, decode) as learned after each request."""
    feedback = Feedback({"b": prior}, {"b": SHAPE}, calibration=Calibration())
    dispatcher = build_dispatcher(
        _config(model),
        belief=lambda _: prior,
        predictor=ConstantLengthPredictor(LengthForecast(130.0, 300.0)),
        observers=[feedback],
    )
    course = []
    for at_s, name, k, request in _events(requests(model, part)):
        if name == "arrival":
            ask = Request(str(k), model, at_s, int(request["prompt_tokens"]))
            assert isinstance(dispatcher.dispatch(ask, at_s), Assign)
        elif name == "first_token":
            dispatcher.first_token(str(k), at_s)
        else:
            tokens = int(request["output_tokens"])
            dispatcher.complete(str(k), at_s, output_tokens=tokens)
            course.append(feedback.corrections()["b"])
    return course


def _config(model: str) -> MotleyConfig:
    backend = {"gpu": GPU, "model": model, "name": "b"}
    return load_config({"backends": [backend], "policy": {"name": "round-robin"}})


def _events(
    asked: Sequence[dict[str, float]],
) -> Iterator[tuple[float, str, int, dict[str, float]]]:
    told = ("arrival", "first_token", "finished")
    found = [
        (request[f"{name}_s"], order, k)
        for k, request in enumerate(asked)
        for order, name in enumerate(told)
    ]
    for at_s, order, k in sorted(found):
        yield at_s, told[order], k, asked[k]


def judged(course: Sequence[tuple[float, float]], phase: int, truth: float) -> Learned:
    errors = [abs(seen[phase] / truth - 1.0) for seen in course]
    runs = range(len(errors) - IN_A_ROW + 1)
    when = next((k + 1 for k in runs if max(errors[k : k + IN_A_ROW]) <= WITHIN), None)
    return Learned(when, float(np.median(errors[len(errors) // 2 :])))


def learning(model: str, part: int) -> Iterator[tuple[float, tuple[Learned, Learned]]]:
    """By how wrong the prior is: how prefill and decode were learned."""
    catalogue = iteration_model(model, shipped(model))
    for wrong in WRONG:
        prior = catalogue.scaled(1.0 / wrong, 1.0 / wrong).linear()
        truth = true_factors(prior, traffic(model, part))
        course = learn(model, part, prior)
        yield wrong, (judged(course, 0, truth[0]), judged(course, 1, truth[1]))


def twin(model: str, part: int) -> dict[str, list[tuple[float, float]]]:
    """(real, simulated) P50, P90 and P99 in seconds, by metric."""
    asked = requests(model, part)
    trace = Trace("served")
    for one in asked:
        lengths = int(one["prompt_tokens"]), int(one["output_tokens"])
        trace.append(TraceRecord(one["arrival_s"], *lengths, model=model))
    config = _config(model)
    (spec,) = config.fleet.backends
    engine = replace(
        replica_config(spec, hardware=config.hardware),
        max_num_seqs=256,
        max_num_batched_tokens=2048,
        schedule_ahead=0,
        prefix_caching=False,
        kv_capacity_tokens=600_000,
    )
    truth = iteration_model(model, fitted(grid(model)).priors)
    result = run_policy(
        trace,
        config,
        "round-robin",
        ReplayOptions(model_error=0.0, feedback=False),
        truth_of=lambda _: truth,
        replica_of=lambda _, model: make_replica(engine, model, exact=True),
    )
    said = latencies(result)
    arrival, first, last, outputs = (
        np.array([one[name] for one in asked])
        for name in ("arrival_s", "first_token_s", "finished_s", "output_tokens")
    )
    pairs = {
        "TTFT": (first - arrival, said.ttft_s),
        "TPOT": ((last - first) / (outputs - 1), said.tpot_s),
        "E2E": (last - arrival, said.e2e_s),
    }
    levels = (50, 90, 99)
    return {
        name: [(float(np.percentile(r, p)), float(np.nanpercentile(s, p))) for p in levels]
        for name, (r, s) in pairs.items()
    }


def learning_table() -> str:
    """Markdown: how soon each phase is known, from each prior."""
    lines = [
        "| traffic | wrong prior | prefill: requests to 10 % | error after "
        "| decode: requests to 10 % | error after |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for model, part in itertools.product(MODELS, (0, 1)):
        for wrong, phases in learning(model, part):
            cells = [f"{found.requests or 'never'} | {100 * found.error:.0f} %" for found in phases]
            where = f"{model}, {rates(model)[part]:g} requests/s"
            lines.append(f"| {where} | x {wrong:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def twin_table() -> str:
    """Markdown: each percentile as it was, and by how much the twin is off."""
    heads = [f"{model}, {rate:g} requests/s" for model in MODELS for rate in rates(model)]
    lines = [f"| real, twin | {' | '.join(heads)} |", "|---|" + "--:|" * len(heads)]
    found = [twin(model, part) for model, part in itertools.product(MODELS, (0, 1))]
    for name in found[0]:
        for k, level in enumerate((50, 90, 99)):
            both = [one[name][k] for one in found]
            cells = [f"{_ms(r)} ms, {100 * (s / r - 1):+.0f} %" for r, s in both]
            lines.append(f"| {name} P{level} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.0f}" if seconds >= 0.1 else f"{1e3 * seconds:.3g}"


def main() -> None:
    print(learning_table(), twin_table(), sep="\n\n")


if __name__ == "__main__":
    main()
