"""Every setting of the YAML file. Parsed once, frozen; unknown keys are errors."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from router.config.access import AccessSection, AdminSection, ApiKey
from router.config.discovery import DiscoverySection
from router.config.planner import PlannerSection
from router.config.section import MOST, Engine, Seconds, Section
from router.config.shared import SharedSection
from router.config.upstream import ServerTls, UpstreamSection

_Number = Annotated[StrictInt, Field(ge=-MOST, le=MOST)]


class BackendEntry(Section):
    """One line of ``backends``: one engine, or ``count`` identical ones."""

    gpu: str
    model: str
    served_model: str = ""
    engine: Engine = "vllm"
    count: int = Field(default=1, ge=1, le=10_000)
    tensor_parallel: int = Field(default=1, ge=1, le=64)
    url: str | list[str] | None = None
    name: str | None = None
    zone: str = ""
    engine_version: str = ""
    quantization: str = ""
    max_model_len: int | None = Field(default=None, ge=1, le=MOST)
    kv_capacity_tokens: int | None = Field(default=None, ge=1, le=MOST)
    max_num_seqs: int | None = Field(default=None, ge=1, le=MOST)
    max_num_batched_tokens: int | None = Field(default=None, ge=1, le=MOST)
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    labels: dict[str, str] = Field(default_factory=dict)
    engine_args: dict[str, StrictBool | _Number | StrictFloat | StrictStr] = Field(
        default_factory=dict
    )
    role: Literal["both", "prefill", "decode"] = "both"
    bootstrap_port: int | None = Field(default=None, ge=1, le=65535)
    kv_events: str = Field(default="", pattern=r"^$|^(tcp|ipc)://.+")
    kv_replay: str = Field(default="", pattern=r"^$|^(tcp|ipc)://.+")


class ShadowSection(Section):
    """A policy that is asked about live traffic and not obeyed."""

    name: str
    params: dict[str, float] = Field(default_factory=dict)


class CanarySection(ShadowSection):
    """A policy that decides a share of live traffic, until it costs too much SLO attainment.

    It is taken back when, of at least ``min_requests`` of its own in the window, significantly
    fewer kept their SLO than of the others: by more than ``margin``, at 95 % confidence.
    """

    share: float = Field(default=0.05, gt=0.0, lt=1.0, allow_inf_nan=False)
    margin: float = Field(default=0.01, ge=0.0, lt=1.0, allow_inf_nan=False)
    min_requests: int = Field(default=100, ge=1)
    window_s: Seconds = 600.0


class PolicySection(Section):
    """Which policy decides, and its parameters."""

    name: str = "motley"
    params: dict[str, float] = Field(default_factory=dict)
    seed: int = 0
    shadow: ShadowSection | None = None
    canary: CanarySection | None = None


class TargetsSection(Section):
    """Latency targets; leave one out for no target."""

    ttft_s: Seconds | None = None
    tpot_s: Seconds | None = None
    e2e_s: Seconds | None = None

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if self.ttft_s is not None and self.e2e_s is not None and self.e2e_s < self.ttft_s:
            raise ValueError("e2e_s must be at least ttft_s: an answer begins before it ends")
        return self


class SloSection(TargetsSection):
    """Targets of one service class; ``models`` replaces them all for the models it names."""

    models: dict[str, TargetsSection] = Field(default_factory=dict)


class AdmissionSection(Section):
    """Scheduling of service classes; off, the router's queue is first in, first out.

    On: between classes the earliest latest-start goes first, inside a class tenants share by
    weight, and a request whose targets cannot be met is answered 429 at once.
    """

    enabled: bool = False
    tenant_weights: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        default_factory=dict
    )
    max_wait_s: dict[str, Seconds] = Field(default_factory=dict)
    patience_s: Seconds = 300.0
    aged_after_s: Seconds = 60.0
    aged_share: float = Field(default=0.1, ge=0.0, le=0.5)
    margin: float = Field(default=0.8, gt=0.0, le=1.0)
    protect: float = Field(default=0.5, gt=0.0, le=1.0)
    headroom: float = Field(default=0.8, gt=0.0, le=1.0)
    preempt: bool = True


class RecordSection(Section):
    """Where the facts of every request are written, and what bounds them."""

    directory: str
    salt: str | None = Field(default=None, min_length=8)
    file_rows: int = Field(default=100_000, ge=1)
    file_age_s: Seconds = 3600.0
    total_bytes: int = Field(default=2 * 1024**3, ge=1024)


class LearnedSection(Section):
    """Where what was learned is kept over a restart, and how often it is written."""

    file: str = Field(pattern=r"^[^\x00]+$")
    every_s: Seconds = 60.0


class PowerSection(Section):
    """Where the power of one backend's cards is read: a DCGM exporter, or NVML right here."""

    dcgm: str | None = Field(default=None, pattern=r"^https?://.+")
    gpus: list[int | str] = Field(default_factory=list)
    nvml: list[Annotated[int, Field(ge=0)]] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.dcgm is None) == (not self.nvml):
            raise ValueError("give either dcgm (a URL, with gpus) or nvml (card numbers)")
        if self.nvml and self.gpus:
            raise ValueError("gpus goes with dcgm; nvml lists its own card numbers")
        return self


class HedgingSection(Section):
    """Second attempts for requests whose first token is late; see ``router.hedge``."""

    enabled: bool = False
    extra: float = Field(default=0.05, gt=0.0, le=1.0)
    after: float = Field(default=3.0, ge=1.0, allow_inf_nan=False)
    at_least_s: Seconds = 0.5
    gain: float = Field(default=2.0, ge=0.0, allow_inf_nan=False)


class DisaggregationSection(Section):
    """Prompts computed on one backend, answers on another; see ``router.pairing``."""

    enabled: bool = False
    link_gb_per_s: float = Field(default=12.5, gt=0.0, allow_inf_nan=False)
    cross_zone_gb_per_s: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)
    latency_s: float = Field(default=0.005, ge=0.0, allow_inf_nan=False)
    gain: float = Field(default=0.1, ge=0.0, allow_inf_nan=False)
    min_prompt_tokens: int = Field(default=256, ge=0)
    backlog_s: Seconds = 0.3
    ttft_slack: float = Field(default=1.5, gt=0.0, allow_inf_nan=False)


class TelemetrySection(Section):
    """How the engines are read, and who is told of the requests."""

    enabled: bool = True
    scrape_interval_s: Seconds = 1.0
    timeout_s: Seconds = 2.0
    stale_after_s: Seconds = 10.0
    explain_every_s: Seconds | None = 5.0
    feedback: bool = True
    orca: bool = True
    record: RecordSection | None = None
    learned: LearnedSection | None = None
    otlp_endpoint: str | None = Field(default=None, pattern=r"^https?://.+")
    trace_ratio: float = Field(default=1.0, ge=0, le=1)
    power: dict[str, PowerSection] = Field(default_factory=dict)


class BreakerSection(Section):
    """The circuit breaker of each backend."""

    failure_threshold: int = Field(default=3, ge=1)
    open_s: Seconds = 2.0
    max_open_s: Seconds = 30.0

    @model_validator(mode="after")
    def _ceiling_is_above(self) -> Self:
        if self.max_open_s < self.open_s:
            raise ValueError("max_open_s must be at least open_s")
        return self


class OutlierSection(Section):
    """Ejection of who fails far more often than its peers; see ``router.health.care``."""

    enabled: bool = False
    failure_ratio: float = Field(default=0.3, gt=0.0, lt=1.0)
    min_requests: int = Field(default=20, ge=1)
    max_ejected: float = Field(default=0.5, gt=0.0, le=1.0)


class ContinuationSection(Section):
    """Mid-stream continuation: a stream that breaks off is gone on with by another backend.

    With ``by_default`` off, only for requests that say ``x-motley-continue: 1`` or
    ``"motley_continue": true``; with it on, for all that do not say no.
    """

    enabled: bool = False
    by_default: bool = True
    max_per_request: int = Field(default=2, ge=1, le=100)
    max_bytes: int = Field(default=1_048_576, ge=1024)


class ReliabilitySection(Section):
    """Timeouts, retries and the router's queue."""

    connect_timeout_s: Seconds = 2.0
    first_byte_timeout_s: Seconds = 120.0
    idle_timeout_s: Seconds = 60.0
    total_timeout_s: Seconds = 1800.0
    max_retries: int = Field(default=3, ge=0)
    queue_size: int = Field(default=1000, ge=0)
    queue_timeout_s: Seconds = 60.0
    health_interval_s: Seconds = 5.0
    health_timeout_s: Seconds = 5.0
    health_failures: int = Field(default=3, ge=1)
    drain_timeout_s: Seconds = 30.0
    drain_delay_s: float = Field(default=0.0, ge=0, le=3600)
    breaker: BreakerSection = BreakerSection()
    outlier: OutlierSection = OutlierSection()
    slow_start_s: float = Field(default=0.0, ge=0, le=3600)
    panic_threshold: float = Field(default=0.0, ge=0.0, le=1.0)
    continuation: ContinuationSection = ContinuationSection()


class ServerSection(Section):
    """The gateway's own door."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    api_keys: list[ApiKey] = Field(default_factory=list)
    max_body_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    max_json_depth: int = Field(default=256, ge=1)
    decision_log: str | None = None
    front_end: Literal["protocol", "asgi"] = "protocol"
    tls: ServerTls | None = None
    workers: int = Field(default=1, ge=1, le=256)
    access_log: bool = False
    dashboard: bool = True


class ModelSection(Section):
    """A model of your own; see ``router.perf.specs.ModelSpec``. Five figures are required."""

    parameters: int = Field(ge=1)
    layers: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    heads: int = Field(default=0, ge=0)
    head_dim: int = Field(default=128, ge=1)
    intermediate_size: int = Field(default=0, ge=0)
    vocab_size: int | None = Field(default=None, ge=1)
    tied_embeddings: bool | None = None
    max_context_tokens: int | None = Field(default=None, ge=1)
    dtype: Literal["bf16", "fp16"] | None = None


class BatchSection(Section):
    """The Batch API; off until it has a directory.

    What is stored is counted by the holder of the key; without keys everybody is one holder.
    """

    directory: str | None = None
    concurrency: int = Field(default=16, ge=1, le=10_000)
    slo_class: str = "bulk"
    max_files_per_key: int = Field(default=10_000, ge=1)
    max_gib_per_key: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    max_open_per_key: int = Field(default=100, ge=1)


class ConfigFile(Section):
    """The whole file."""

    backends: list[BackendEntry] = Field(default_factory=list)
    discovery: DiscoverySection = DiscoverySection()
    policy: PolicySection = PolicySection()
    slos: dict[str, SloSection] = Field(default_factory=dict)
    admission: AdmissionSection = AdmissionSection()
    hedging: HedgingSection = HedgingSection()
    disaggregation: DisaggregationSection = DisaggregationSection()
    telemetry: TelemetrySection = TelemetrySection()
    reliability: ReliabilitySection = ReliabilitySection()
    planner: PlannerSection = PlannerSection()
    server: ServerSection = ServerSection()
    access: AccessSection = AccessSection()
    admin: AdminSection = AdminSection()
    upstream: UpstreamSection = UpstreamSection()
    shared: SharedSection = SharedSection()
    aliases: dict[str, str] = Field(default_factory=dict)
    fallbacks: dict[str, list[str]] = Field(default_factory=dict)
    adapters: dict[str, str] = Field(default_factory=dict)
    batch: BatchSection = BatchSection()
    models: dict[str, ModelSection] = Field(default_factory=dict)
    overrides: list[dict[str, Any]] = Field(default_factory=list)
