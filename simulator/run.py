"""One replay from start to end: truth, belief, gateways, replicas, result.

The only builder of the simulator; commands, sweeps and tests call ``run_policy``.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from router.config.load import MotleyConfig
from router.config.schema import PolicySection
from router.decision_log import Sink
from router.domain.errors import ConfigError, TraceError, UnknownNameError
from router.domain.fleet import BackendSpec
from router.domain.protocols import PerfModel
from router.domain.slo import DEFAULT_CLASS
from router.perf.hardware import Hardware
from router.policies.registry import POLICIES
from simulator.belief import believe
from simulator.faults import Fault, check_backends
from simulator.gateways import MakePlanner, build_gateways
from simulator.onlooker import Progress
from simulator.options import ReplayOptions
from simulator.replay import Replay
from simulator.replica.build import make_replica
from simulator.replica.config import replica_config
from simulator.replica.interface import Replica
from simulator.results import RunResult, Status
from simulator.traces.columns import Trace
from telemetry.learned import Learned

TruthOf = Callable[[BackendSpec], PerfModel]
ReplicaOf = Callable[[BackendSpec, PerfModel], Replica]


def run_policy(
    trace: Trace,
    config: MotleyConfig,
    policy: str,
    options: ReplayOptions | None = None,
    *,
    rate_scale: float = 1.0,
    faults: Sequence[Fault] = (),
    truth_of: TruthOf | None = None,
    replica_of: ReplicaOf | None = None,
    make_planner: MakePlanner | None = None,
    log: Sink | None = None,
    learned: Learned | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Replay a trace with one policy.

    Args:
        trace: what arrives, scaled already.
        config: fleet, SLOs, reliability; its policy's parameters are used if the names agree.
        policy: name of the policy.
        options: how to replay.
        rate_scale: only noted in the result.
        faults: the timeline.
        truth_of: the true iteration time of each backend; by default the catalogue's, or the
            user's own measurements.
        replica_of: builds an engine; by default the one its spec describes.
        make_planner: the planner, if ``options.plan``.
        log: the decision log of the first gateway replica.
        learned: before; see ``build_gateways``.
        progress: told (requests settled, requests) now and then.

    Raises:
        UnknownNameError: no such policy, a fault on no such backend, a delay to no such zone.
        ConfigError: the fleet serves no model that the trace asks for.
        TraceError: the trace is empty or has no arrivals.
    """
    options = options or ReplayOptions()
    replay = build_replay(
        trace,
        config,
        policy,
        options,
        faults=faults,
        truth_of=truth_of,
        replica_of=replica_of,
        make_planner=make_planner,
        log=log,
        learned=learned,
        progress=progress,
    )
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    replay.run()
    return RunResult(
        policy=policy,
        fleet_name=Path(config.source).stem,
        rate_scale=rate_scale,
        seed=options.seed,
        trace=trace,
        backends=config.fleet.backends,
        records=replay.records,
        slos=dict(config.slos),
        reasons=replay.reasons,
        timeline=replay.timeline,
        preemptions=sum(engine.replica.preemptions for engine in replay.engines),
        wall_s=time.perf_counter() - wall_s,
        cpu_s=time.process_time() - cpu_s,
        notes=_notes(trace, config, options, replay, faults),
        options=options.as_json(),
    )


def build_replay(
    trace: Trace,
    config: MotleyConfig,
    policy: str,
    options: ReplayOptions,
    *,
    faults: Sequence[Fault] = (),
    truth_of: TruthOf | None = None,
    replica_of: ReplicaOf | None = None,
    make_planner: MakePlanner | None = None,
    log: Sink | None = None,
    learned: Learned | None = None,
    progress: Progress | None = None,
) -> Replay:
    """Put a replay together without running it; arguments and errors as ``run_policy``."""
    check_trace(trace, config)
    check_backends(faults, (spec.name for spec in config.fleet.backends))
    zones = {spec.zone for spec in config.fleet.backends}
    for zone in options.zone_delay_s:
        if zone not in zones:
            raise UnknownNameError("zone", zone, filter(None, zones))
    truly = truth_of or config.hardware.iteration_model
    truth = {spec.name: truly(spec) for spec in config.fleet.backends}
    mine = replace(config, policy=_policy_section(config, policy))
    gateways = build_gateways(
        trace,
        mine,
        options,
        believe(truth, options),
        make_planner=make_planner,
        log=log,
        learned=learned,
    )
    build = replica_of or _stock_replica(options, config.hardware)
    return Replay(
        trace,
        mine,
        options,
        gateways,
        lambda spec: build(spec, truth[spec.name]),
        faults=faults,
        progress=progress,
    )


def check_trace(trace: Trace, config: MotleyConfig) -> None:
    """Make sure that the fleet can be asked what the trace asks.

    Raises:
        TraceError: the trace is empty or has no arrivals.
        ConfigError: a model that no backend serves, or no backends.
    """
    if not len(trace):
        raise TraceError("the trace is empty: it holds no request", path=trace.name)
    if not trace.timed:
        raise TraceError(
            "holds lengths but no arrival times; add an arrival process, as in "
            "--arrivals poisson --rate 5",
            path=trace.name,
        )
    served = {config.first_backend.model} | config.fleet.models | set(config.aliases)
    unknown = [name for name in trace.model.used() if name and name not in served]
    if unknown:
        raise ConfigError(
            f"the trace {trace.name!r} asks for {', '.join(map(repr, unknown))}, which no backend "
            f"of the fleet serves; served: {', '.join(sorted(served))}. Send everything to one "
            "model with --model NAME."
        )


def policy_names(asked: Sequence[str]) -> list[str]:
    """Expand ``all`` and check every name; each policy once, in the order asked.

    Raises:
        UnknownNameError: no such policy.
    """
    names: list[str] = []
    for name in asked:
        if name == "all":
            names.extend(POLICIES)
        elif name in POLICIES:
            names.append(name)
        else:
            raise UnknownNameError("policy", name, (*POLICIES, "all"))
    return list(dict.fromkeys(names))


def _policy_section(config: MotleyConfig, policy: str) -> PolicySection:
    if config.policy.name == policy:
        return config.policy
    return PolicySection(name=policy)


def _stock_replica(options: ReplayOptions, hardware: Hardware) -> ReplicaOf:
    exact = options.engine == "exact"
    return lambda spec, truth: make_replica(
        replica_config(spec, hardware=hardware), truth, exact=exact
    )


def _after_the_end(faults: Sequence[Fault], replay: Replay) -> str:
    """Say of faults that come when all is over that they changed nothing; empty if none does."""
    end_s = max((at for at in replay.records.finished_s if not math.isnan(at)), default=0.0)
    late = [fault for fault in faults if fault.at_s > end_s]
    if not late:
        return ""
    first = late[0]
    return (
        f"{len(late)} fault(s) come after the last answer and changed nothing: first "
        f"{first.kind} of {first.backend} at {first.at_s:g} s"
    )


def _about_the_question(
    trace: Trace, config: MotleyConfig, options: ReplayOptions
) -> Iterator[str]:
    if options.oracle:
        yield "ORACLE: true lengths, exact costs and fresh signals; a bound, not a result"
    elif options.length_predictor == "oracle":
        yield "ORACLE LENGTHS: the forecast is the true output length"
    if len(trace) > 1 and not trace.span_s:
        yield (
            "all requests arrive at one instant: rates are over the time until the last one "
            "ended, and --rate-scale changes nothing"
        )
    strange = [name for name in trace.slo_class.used() if name and name not in config.slos]
    if strange:
        names = ", ".join(map(repr, strange))
        yield f"no SLO is set for class {names}: judged as {DEFAULT_CLASS!r}"


def _notes(
    trace: Trace,
    config: MotleyConfig,
    options: ReplayOptions,
    replay: Replay,
    faults: Sequence[Fault],
) -> list[str]:
    notes = list(_about_the_question(trace, config, options))
    if late := _after_the_end(faults, replay):
        notes.append(late)
    fell_back: Counter[tuple[str, str]] = sum((d.fell_back for d in replay.dispatchers), Counter())
    for (asked, served), count in fell_back.items():
        notes.append(f"{count} request(s) for {asked} were answered by {served}")
    hedging = [d.hedging for d in replay.dispatchers if d.hedging is not None]
    if hedging:
        sent, won = sum(h.sent for h in hedging), sum(h.won for h in hedging)
        extra = sum(h.extra_s for h in hedging) / max(sum(h.base_s for h in hedging), 1e-9)
        notes.append(
            f"hedging: {sent} second attempt(s), {won} of them first to answer, "
            f"{100 * extra:.2f} % more prefill work"
        )
    pairings = [d.pairing for d in replay.dispatchers if d.pairing is not None]
    if pairings:
        shared = sum(p.paired.total() for p in pairings)
        moved_gb = sum(p.moved_bytes for p in pairings) / 1e9
        broken = sum(p.broken.total() for p in pairings)
        notes.append(
            f"disaggregation: {shared} request(s) shared by two backends, {broken} of them broken "
            f"off, {moved_gb:.3g} GB of KV moved"
        )
    stuck = replay.reasons.get("never_finished", 0)
    if stuck:
        notes.append(f"{stuck} request(s) could never finish and were counted as failed")
    cut = sum(
        1
        for i, asked in enumerate(replay.records.output_tokens)
        if replay.records.status[i] == Status.COMPLETED and asked < trace.output_tokens[i]
    )
    if cut:
        notes.append(f"{cut} answer(s) were cut at the engine's context limit")
    return notes
