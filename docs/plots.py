"""The plots of the explanation, each drawn from the code it explains."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np

from router.config.load import MotleyConfig, load_config
from router.domain.fleet import BackendSpec
from router.perf.build import iteration_model

MODEL = "llama-3.1-8b"
CARDS = (("a100-80", 1), ("v100-32", 1), ("t4", 2))
COLORS = ("#3f51b5", "#e0822f", "#2a9d6f", "#b5446e")
FLEET = {
    "backends": [
        {"gpu": "a100-80", "count": 2, "engine": "sglang", "model": MODEL},
        {"gpu": "v100-32", "count": 2, "engine": "vllm", "model": MODEL},
        {"gpu": "t4", "count": 4, "engine": "vllm", "model": MODEL, "tensor_parallel": 2},
    ]
}
"""Small enough to be simulated while the site builds."""


def iteration(axes: Any) -> None:
    """What an iteration takes, as the batch grows; and what a prompt takes."""
    left, right = axes(2)
    seqs, prompts = np.arange(1, 129), np.geomspace(16, 8192, 60)
    for (gpu, tensor_parallel), color in zip(CARDS, COLORS, strict=False):
        spec = BackendSpec("b", gpu, "vllm", MODEL, tensor_parallel)
        model = iteration_model(spec)
        name = gpu if tensor_parallel == 1 else f"{tensor_parallel} x {gpu}"
        decode = [1000 * model.iteration_s(0, int(n), 1000.0 * n) for n in seqs]
        left.plot(seqs, decode, color=color, label=name)
        prefill = [1000 * model.iteration_s(int(n), 0, 0.0) for n in prompts]
        right.loglog(prompts, prefill, color=color, label=name)
    left.set(xlabel="requests decoding, 1000 tokens of context each", ylabel="iteration, ms")
    right.set(xlabel="tokens of the prompt", ylabel="prefill, ms")
    left.legend()


def congestion(axes: Any) -> None:
    """The convex curve of delay against load, and the tangents that the ILP knows it by."""
    from solver.congestion import Congestion  # noqa: PLC0415 - takes a while
    from solver.points import PLACE_POINTS  # noqa: PLC0415

    (left,) = axes(1)
    curve = Congestion(concurrency=6.0, batch=48.0)
    rho = np.linspace(0.0, 0.96, 200)
    left.plot(rho, curve.extras(rho), color=COLORS[0], linewidth=2, label="delay")
    slopes, intercepts = curve.tangents([0.95 * share for share in PLACE_POINTS])
    for k, (slope, intercept) in enumerate(zip(slopes, intercepts, strict=True)):
        left.plot(
            rho,
            slope * rho + intercept,
            color=COLORS[1],
            linewidth=0.8,
            label=None if k else "tangents",
        )
    left.set(xlabel="utilization", ylabel="requests in the system, in excess", ylim=(0, 35))
    left.legend()


def prices(axes: Any) -> None:
    """What one more engine-second costs on each kind of card, and who serves, as load grows."""
    left, right = axes(2)
    loads = (1.0, 1.75, 2.5, 3.3)
    plans = [_plan(load) for load in loads]
    groups = [one.group for one in plans[-1].replicas]
    for group, color in zip(groups, COLORS, strict=False):
        name = group.split("/")[0]
        left.plot(loads, [p.price_of(group) for p in plans], "o-", color=color, label=name)
        used = [next((r.utilization for r in p.replicas if r.group == group), 0) for p in plans]
        right.plot(loads, used, "o-", color=color, label=name)
    left.set(xlabel="load, times the trace", ylabel="price, s/s", yscale="symlog")
    right.set(xlabel="load, times the trace", ylabel="planned utilization", ylim=(0, 1))
    right.legend()


def tail(axes: Any) -> None:
    """P99 of TTFT and of E2E against load, for three policies, from the simulator."""
    left, right = axes(2)
    loads = (1.5, 3.0, 4.5)
    for policy, color in zip(("least-request", "marginal-delay", "motley"), COLORS, strict=False):
        figures = [_replay(policy, load) for load in loads]
        left.plot(loads, [one[0] for one in figures], "o-", color=color, label=policy)
        right.plot(loads, [one[1] for one in figures], "o-", color=color, label=policy)
    left.set(xlabel="load, times the trace", ylabel="TTFT P99, s", ylim=(0, None))
    right.set(xlabel="load, times the trace", ylabel="E2E P99, s", ylim=(0, None))
    left.legend()


def learning(axes: Any) -> None:
    """A card that is a third slower than believed, and that is throttled half way."""
    (left,) = axes(1)
    from router.domain.state import LinearCost  # noqa: PLC0415
    from telemetry.log_filter import LogFilter  # noqa: PLC0415

    rng = np.random.default_rng(0)
    cost = LinearCost(step_s=0.0105, prefill_s=8e-5, seq_s=2e-5, context_s=7.6e-8)
    known = LogFilter(spread=(0.5,), wander_per_s=(0.01,), limit=2.5, noise=0.2)
    times = np.cumsum(rng.exponential(1.0, 240))
    truth = np.where(times < 120, 1.33, 2.4)
    believed, low, high = [], [], []
    for at_s, true in zip(times, truth, strict=True):
        base = cost.iteration_s(500, 8, 5000.0)
        known.learn((base,), base * true * math.exp(rng.normal(0, 0.1)), "decode", float(at_s))
        factor, deviation = known.factors()[0], known.deviation(0)
        believed.append(factor)
        low.append(factor * math.exp(-2 * deviation))
        high.append(factor * math.exp(2 * deviation))
    left.plot(times, truth, color="grey", linestyle="--", label="truth")
    left.plot(times, believed, color=COLORS[0], label="learned")
    left.fill_between(times, low, high, color=COLORS[0], alpha=0.2, label="95 %")
    left.set(xlabel="seconds", ylabel="times as slow as the prior", ylim=(0.8, 3))
    left.legend()


def real_gpu(axes: Any) -> None:
    """Iterations measured on an H200, the model fitted to them, and the catalogue's."""
    from benchmarks.gpu import accuracy  # noqa: PLC0415 - only this one needs it

    left, right = axes(2)
    model = accuracy.MODELS[0]
    points = [(m.terms[0], 1000 * m.time_s) for m in accuracy.grid(model)]
    fitted = accuracy.iteration_model(model, accuracy.fitted(accuracy.grid(model)).priors)
    catalogue = accuracy.iteration_model(model, accuracy.shipped(model))
    seqs, prompts = np.arange(1, 257), np.geomspace(16, 8192, 60)
    for context, color in zip((512, 2048, 8192), COLORS, strict=False):
        mine = [
            (t.decode_seqs, ms)
            for t, ms in points
            if not t.prefill_tokens and t.context_tokens == t.decode_seqs * context
        ]
        left.plot(*zip(*mine, strict=True), "o", color=color, markersize=3)
        fits = seqs[seqs <= max(n for n, _ in mine)]
        for line, style in ((fitted, "-"), (catalogue, ":")):
            times = [1000 * line.iteration_s(0, int(n), float(context * n)) for n in fits]
            name = f"{context} tokens" if style == "-" else None
            left.plot(fits, times, style, color=color, label=name)
    fresh = [
        (t.prefill_tokens, ms)
        for t, ms in points
        if not t.decode_seqs and t.prefill_pairs == t.prefill_tokens**2 / 2
    ]
    right.loglog(*zip(*fresh, strict=True), "o", color=COLORS[0], markersize=3, label="measured")
    for line, style, name in ((fitted, "-", "fitted"), (catalogue, ":", "catalogue")):
        times = [1000 * line.iteration_s(int(n), 0, 0.0, n * n / 2) for n in prompts]
        right.loglog(prompts, times, style, color=COLORS[0], label=name)
    left.set(xlabel="requests decoding", ylabel="iteration, ms")
    right.set(xlabel="tokens of the prompt", ylabel="iteration, ms")
    left.legend(title="context of each")
    right.legend()


PLOTS: Mapping[str, Callable[[Any], None]] = {
    "iteration": iteration,
    "congestion": congestion,
    "prices": prices,
    "tail": tail,
    "learning": learning,
    "real-gpu": real_gpu,
}


def svg(draw: Callable[[Any], None]) -> str:
    """A plot as SVG, the same bytes each time."""
    import matplotlib as mpl  # noqa: PLC0415 - takes a while

    mpl.use("Agg")
    from matplotlib.figure import Figure  # noqa: PLC0415

    mpl.rcParams["svg.hashsalt"] = "motley"
    style = {"axes.grid": True, "grid.alpha": 0.25, "font.size": 10, "legend.frameon": False}
    drawn: list[Any] = []

    def axes(count: int) -> Any:
        drawn.append(Figure(figsize=(4.5 * count, 3.2), layout="constrained"))
        made = drawn[0].subplots(1, count, squeeze=False)[0]
        for one in made:
            one.spines[["top", "right"]].set_visible(False)
        return made

    written = io.StringIO()
    with mpl.rc_context(style):
        draw(axes)
        drawn[0].savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue()


@cache
def _config() -> MotleyConfig:
    return load_config(FLEET)


def _trace(load: float, seconds: float) -> Any:
    from simulator.workload import TraceSpec, build_trace  # noqa: PLC0415

    spec = TraceSpec(source="azure-conv-like", rate_scale=load, duration_s=seconds * load)
    return build_trace(spec, 0)[0]


def _plan(load: float) -> Any:
    from router.cli.plan_demand import demand_of  # noqa: PLC0415 - loads the solver
    from solver.plan import plan  # noqa: PLC0415
    from solver.settings import limits_of  # noqa: PLC0415

    config = _config()
    demand = demand_of(_trace(load, 300.0), config, by_tenant=False)
    limits = limits_of(config, allow_unserved=True)
    return plan(demand, config.fleet, None, limits, hardware=config.hardware)


def _replay(policy: str, load: float) -> tuple[float, float]:
    from simulator.options import ReplayOptions  # noqa: PLC0415
    from simulator.run import run_policy  # noqa: PLC0415
    from simulator.summary import summarize  # noqa: PLC0415

    options = ReplayOptions(model_error=0.2)
    run = summarize(run_policy(_trace(load, 120.0), _config(), policy, options))
    return run["ttft_s"]["p99"], run["e2e_s"]["p99"]
