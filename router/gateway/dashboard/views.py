"""What the page is sent, as msgspec structs: the contract between gateway and browser."""

from __future__ import annotations

from msgspec import Struct

Triple = tuple[float | None, float | None, float | None]
"""P50, P90 and P99 in seconds; ``None`` without data."""


class Forecast(Struct, frozen=True):
    """Predicted against actual for one figure of one backend (see ``telemetry.accuracy``)."""

    figure: str
    count: int
    bias: float
    p50_error: float
    p95_error: float
    coverage: float | None


class BackendTile(Struct, frozen=True):
    """One backend.

    ``state`` is "up", "draining", "down" (a health check failed), "open" or "half_open" (its
    breaker). ``kv_usage`` is the engine's own figure where ``kv_is_told``, else the router's
    estimate. ``speed`` holds learned duration over prior (1.2: takes 20 % longer) and its
    relative deviation for prefill and decode; ``None`` where nothing is learned.
    """

    name: str
    gpu: str
    cards: int
    engine: str
    model: str
    group: str
    zone: str
    state: str
    in_flight: int
    prefilling: int
    decoding: int
    engine_waiting: int | None
    kv_usage: float
    kv_is_told: bool
    kv_capacity_tokens: int
    signal_age_s: float | None
    prefill_factor: float | None
    prefill_deviation: float | None
    decode_factor: float | None
    decode_deviation: float | None
    degraded: tuple[tuple[str, float], ...]
    price: float
    requests_per_s: float
    output_tokens_per_s: float
    usd_per_hour: float | None
    watts: float | None
    watts_are_estimated: bool
    forecasts: tuple[Forecast, ...]


class ClassRow(Struct, frozen=True):
    """One service class: its targets, and what its users got in the last minutes."""

    name: str
    ttft_target_s: float | None
    tpot_target_s: float | None
    e2e_target_s: float | None
    finished: int
    attainment: float | None
    goodput_per_s: float
    ttft: Triple
    tpot: Triple
    e2e: Triple


class FlowCell(Struct, frozen=True):
    """Finished requests of one class at one group of identical backends, last minute."""

    slo_class: str
    group: str
    requests: int
    output_tokens: int


class RequestRow(Struct, frozen=True):
    """One request: on its way (``status`` "prefill" or "decode") or over."""

    request_id: str
    slo_class: str
    model: str
    backend: str
    status: str
    age_s: float
    prompt_tokens: int
    output_tokens: int
    ttft_s: float | None
    e2e_s: float | None
    predicted_ttft_s: float | None
    predicted_e2e_s: float | None


class PlanShare(Struct, frozen=True):
    """What share of a class the plan gives to a group."""

    work_class: str
    group: str
    share: float


class PlanView(Struct, frozen=True):
    """The newest plan; ``enabled`` is False where no planner runs."""

    enabled: bool
    age_s: float | None = None
    solve_s: float | None = None
    next_in_s: float | None = None
    failures: int = 0
    last_failure: str = ""
    shares: tuple[PlanShare, ...] = ()
    prices: tuple[tuple[str, float], ...] = ()


class ShadowView(Struct, frozen=True):
    """What a policy that only watches would have done; see ``trial_watch.ShadowFigures``."""

    name: str
    decisions: int
    agreement: float | None
    regret_s: float | None
    ttft_p99_s: float | None
    shadow_ttft_p99_s: float | None
    e2e_p99_s: float | None
    shadow_e2e_p99_s: float | None


class CanaryView(Struct, frozen=True):
    """A policy with a share of the traffic: SLO attainment of its requests and of the others."""

    name: str
    share: float
    judged: int
    attainment: float | None
    main_judged: int
    main_attainment: float | None


class TrialView(Struct, frozen=True):
    """Policies on trial; ``verdict`` says why the last canary was taken back."""

    shadow: ShadowView | None = None
    canary: CanaryView | None = None
    verdict: str = ""


class Event(Struct, frozen=True):
    """Something an operator wants to know; ``severity`` is "good", "info", "warn" or "bad"."""

    number: int
    at_unix_s: float
    severity: str
    subject: str
    text: str


class Totals(Struct, frozen=True):
    """Counters of the gateway since it started, and rates over the last minute."""

    arrived: int
    completed: int
    failed: int
    cancelled: int
    rejected: int
    in_flight: int
    queued: int
    requests_per_s: float
    output_tokens_per_s: float
    usd_per_hour: float | None
    usd_per_million_tokens: float | None
    watts: float | None
    joules_per_token: float | None


class Moment(Struct, frozen=True):
    """One point of the charts; P99 over the last minute."""

    at_unix_s: float
    requests_per_s: float
    output_tokens_per_s: float
    in_flight: int
    queued: int
    ttft_p99_s: float | None
    tpot_p99_s: float | None
    e2e_p99_s: float | None


class Snapshot(Struct, frozen=True):
    """Everything the page shows at one moment."""

    at_unix_s: float
    uptime_s: float
    version: str
    policy: str
    totals: Totals
    backends: tuple[BackendTile, ...]
    classes: tuple[ClassRow, ...]
    flow: tuple[FlowCell, ...]
    requests: tuple[RequestRow, ...]
    plan: PlanView
    trial: TrialView
    events: tuple[Event, ...]
    moment: Moment


class Hello(Struct, frozen=True):
    """The first message: the present and the last minutes for the charts."""

    snapshot: Snapshot
    history: tuple[Moment, ...]
