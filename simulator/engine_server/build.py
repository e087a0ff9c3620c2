"""From a ``BackendSpec`` to a running emulated engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from router.domain.fleet import BackendSpec
from router.perf.build import check_feasible, engine_defaults, iteration_model
from router.perf.hardware import Hardware
from simulator.engine_server.app import EngineApp
from simulator.engine_server.clock import EngineClock
from simulator.engine_server.completions import Completions
from simulator.engine_server.dialect import Dialect, Limits
from simulator.engine_server.driver import Driver, RealTimeLoop
from simulator.engine_server.exposition import EngineFacts, MetricsPage
from simulator.engine_server.handover import Handover
from simulator.engine_server.kv_publisher import KvPublisher
from simulator.engine_server.sglang import SglangDialect
from simulator.engine_server.sglang_metrics import SglangMetrics
from simulator.engine_server.sglang_pages import add_sglang_pages
from simulator.engine_server.stats import EngineStats
from simulator.engine_server.tokens import LengthRule
from simulator.engine_server.vllm import VllmDialect
from simulator.engine_server.vllm_metrics import VllmMetrics
from simulator.engine_server.vllm_pages import add_vllm_pages
from simulator.replica.build import make_replica
from simulator.replica.config import ReplicaConfig, replica_config
from simulator.replica.exact.engine import ExactEngine


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How to emulate, beside what.

    Attributes:
        speed: emulated seconds per real second.
        seed: of answer lengths and response ids.
        max_queued: requests the engine queues before it answers 503; ``None``: no limit.
        lengths: how long answers get.
        link_gb_per_s: bandwidth over which KV moves between engines, in 10^9 bytes a second.
    """

    speed: float = 1.0
    seed: int = 0
    max_queued: int | None = None
    lengths: LengthRule = field(default_factory=LengthRule)
    link_gb_per_s: float = 12.5


def build_engine(
    spec: BackendSpec,
    options: EngineOptions,
    loop: RealTimeLoop,
    unix_s: Callable[[], float],
    address: tuple[str, int] = ("127.0.0.1", 0),
) -> EngineApp:
    """Emulate ``spec`` on ``loop``; ``address`` is where other engines can ask it for KV.

    Raises:
        UnknownNameError: a GPU, model or weight format that does not exist.
        ImpossibleFleetError: the model does not fit, or the engine does not run on this GPU.
        ConfigError: settings with which the real engine would not start.
    """
    check_feasible(spec)
    config = replica_config(spec, max_num_queued_reqs=options.max_queued)
    truth = iteration_model(spec)
    dialect, page = _talk(spec)
    limits = Limits(spec.model, config.longest_job_tokens)
    replica = make_replica(config, truth, exact=True, token_events=True)
    clock = EngineClock(loop.time, options.speed)
    driver = Driver(replica, clock, loop, EngineStats(page.bounds))
    completions = Completions(
        driver,
        dialect,
        limits,
        rule=options.lengths,
        seed=options.seed,
        rng=Random(f"{spec.name} {options.seed}"),
        unix_s=unix_s,
    )
    token_bytes = Hardware().kv_bytes_per_token(spec)
    token_s = token_bytes / (options.link_gb_per_s * 1e9) / options.speed
    completions.handover = Handover(spec, token_s, address)
    publisher = None
    if spec.kv_events and isinstance(replica, ExactEngine):
        publisher = KvPublisher(lambda: replica.pool, spec.kv_events, spec.kv_replay, unix_s)
        publisher.look()
        driver.moved = publisher.look
    app = EngineApp(
        driver,
        dialect,
        page,
        completions,
        facts=_facts(spec, config, unix_s()),
        limits=limits,
    )
    app.publisher = publisher
    if spec.engine == "sglang":
        add_sglang_pages(app, truth.iteration_s(0, 1, 0.0), unix_s)
    else:
        add_vllm_pages(app)
    return app


def _talk(spec: BackendSpec) -> tuple[Dialect, MetricsPage]:
    version = ".".join(map(str, engine_defaults(spec).version))
    if spec.engine == "sglang":
        return SglangDialect(version), SglangMetrics()
    return VllmDialect(version), VllmMetrics()


def _facts(spec: BackendSpec, config: ReplicaConfig, now_unix_s: float) -> EngineFacts:
    return EngineFacts(
        model=spec.model,
        max_model_len=config.longest_job_tokens,
        max_running=config.max_num_seqs,
        kv_capacity_tokens=config.total_blocks * config.block_tokens,
        block_tokens=config.block_tokens,
        prefix_caching=config.prefix_caching,
        tensor_parallel=spec.tensor_parallel,
        started_unix_s=now_unix_s,
    )
