"""Every metric the gateway exports, in one table: the registry and the documentation read it.

Conventions: prefix ``motley_``; counters end in ``_total``, times are in ``_seconds``, shares
and factors are ``_ratio``. Labels that clients can choose (``tenant``, an unknown ``model``,
``slo_class``) are capped; what is over the cap reads ``other``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]

TTFT_BUCKETS = (
    *(0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0, 120.0),
)
"""Around what people notice (0.1 to 0.3 s), the targets (2 and 10 s), and queues."""

TPOT_BUCKETS = (
    *(0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 0.75, 1.0, 2.0),
)
"""From an H100 alone (5 ms) over reading speed (0.2 s) to a stalled batch."""

ITL_BUCKETS = (*TPOT_BUCKETS, 5.0, 10.0)
"""Gaps as they come: the mean's range, and the stalls that a mean hides."""

E2E_BUCKETS = (
    *(0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0),
    *(15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0),
)
OVERHEAD_BUCKETS = (
    *(2e-5, 5e-5, 1e-4, 2e-4, 3e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.5),
)
"""The gateway's own work is a fraction of a millisecond; more is a finding."""

WAIT_BUCKETS = (1e-3, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table.

    Attributes:
        name: as exported; counters with their ``_total``.
        kind: how it may be read.
        help: one line for the operator.
        labels: label names, in order.
        buckets: upper bounds of a histogram, ``+Inf`` left out.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


ON_BACKEND = ("model", "backend")
METERED = ("tenant", "model", "gpu")

ATTEMPTS = Metric(
    "motley_attempts_total",
    "counter",
    "Attempts at a backend that ended, by how (completed, failed, cancelled).",
    ("model", "backend", "policy", "status"),
)
REQUESTS = Metric(
    "motley_requests_total",
    "counter",
    "Client requests answered, by HTTP status.",
    ("model", "slo_class", "code"),
)
REJECTED = Metric(
    "motley_rejected_total", "counter", "Requests turned away, by reason.", ("model", "reason")
)
FALLBACKS = Metric(
    "motley_fallbacks_total",
    "counter",
    "Requests that another model answered at once, because they would have had to wait.",
    ("asked", "served"),
)
HEDGES = Metric(
    "motley_hedges_total",
    "counter",
    "Second attempts for a late first token: sent, and those that answered first.",
    ("result",),
)
SHARED_REQUESTS = Metric(
    "motley_disaggregated_total",
    "counter",
    "Requests sent to two backends: the prompt to one, the answer to the other.",
    ("prefill", "backend"),
)
SHARED_BROKEN = Metric(
    "motley_disaggregation_failures_total",
    "counter",
    "Such requests broken off before their first byte, by the side and the backend that failed.",
    ("side", "backend"),
)
KV_MOVED = Metric(
    "motley_kv_transfer_bytes_total",
    "counter",
    "KV that was to move between backends, by the size of the prompts.",
)
PREFIX_PROMISED = Metric(
    "motley_prefix_index_promised_tokens_total",
    "counter",
    "Prompt tokens that the prefix index held to be cached, where the engine told what it found.",
    ("backend",),
)
KV_EVENTS = Metric(
    "motley_prefix_index_events_total",
    "counter",
    "KV events of engines that publish them: stored, removed, cleared; evicted (blocks of text "
    "that the index may still have held); requests learned and ambiguous; gaps replayed and lost, "
    "restarts, unreadable messages.",
    ("backend", "event"),
)
PREFIX_MISSING = Metric(
    "motley_prefix_index_missing_tokens_total",
    "counter",
    "Of those, the tokens that the engine did not find: where the index disagrees with it.",
    ("backend",),
)
RETRIES = Metric(
    "motley_retries_total",
    "counter",
    "Attempts that failed before the first byte and were sent elsewhere, by the backend left.",
    ("backend", "reason"),
)
CONTINUATIONS = Metric(
    "motley_continuations_total",
    "counter",
    "Streams that broke in mid-answer and might be continued: completed elsewhere, failed there "
    "too, cancelled by the client, or not_possible (too long, or not text only).",
    ("outcome",),
)
TTFT = Metric(
    "motley_time_to_first_token_seconds",
    "histogram",
    "Arrival at the gateway to first token, completed requests.",
    ON_BACKEND,
    TTFT_BUCKETS,
)
TPOT = Metric(
    "motley_time_per_output_token_seconds",
    "histogram",
    "Mean gap between tokens after the first, completed requests.",
    ON_BACKEND,
    TPOT_BUCKETS,
)
ITL = Metric(
    "motley_inter_token_latency_seconds",
    "histogram",
    "Gaps between the reads that brought tokens; of completed streams, and of long ones so far.",
    ON_BACKEND,
    ITL_BUCKETS,
)
FINISH_REASONS = Metric(
    "motley_finish_reasons_total",
    "counter",
    "Completed answers by why the engine stopped (stop, length, tool_calls ...).",
    ("model", "backend", "reason"),
)
E2E = Metric(
    "motley_request_duration_seconds",
    "histogram",
    "Arrival at the gateway to last token, completed requests.",
    ON_BACKEND,
    E2E_BUCKETS,
)
WAIT = Metric(
    "motley_queue_wait_seconds",
    "histogram",
    "Time in the router's own queue before the first attempt.",
    ("model",),
    WAIT_BUCKETS,
)
OVERHEAD = Metric(
    "motley_gateway_overhead_seconds",
    "histogram",
    "The gateway's own work per request, by stage.",
    ("stage",),
    OVERHEAD_BUCKETS,
)
PROMPT_TOKENS = Metric(
    "motley_prompt_tokens_total", "counter", "Prompt tokens of completed requests.", ON_BACKEND
)
CACHED_TOKENS = Metric(
    "motley_cached_prompt_tokens_total",
    "counter",
    "Prompt tokens that engines found in their prefix cache, where they tell.",
    ON_BACKEND,
)
OUTPUT_TOKENS = Metric(
    "motley_output_tokens_total", "counter", "Tokens received from engines.", ON_BACKEND
)
TENANT_TOKENS = Metric(
    "motley_tenant_tokens_total",
    "counter",
    "Prompt and output tokens by tenant.",
    ("tenant", "kind"),
)
IN_FLIGHT = Metric(
    "motley_requests_in_flight",
    "gauge",
    "Requests sent and not finished, by phase (prefill, decode).",
    ("backend", "phase"),
)
QUEUE_DEPTH = Metric("motley_queue_depth", "gauge", "Requests waiting in the router for a backend.")
BACKEND_UP = Metric(
    "motley_backend_up",
    "gauge",
    "1 if the backend may be used: healthy, not draining, breaker not open.",
    ("backend",),
)
EJECTIONS = Metric(
    "motley_outlier_ejections_total",
    "counter",
    "Backends taken out because they failed far more often than their peers.",
    ("backend",),
)
BREAKER = Metric(
    "motley_breaker_state",
    "gauge",
    "Circuit breaker: 0 closed, 1 half open, 2 open.",
    ("backend",),
)
SCRAPE_AGE = Metric(
    "motley_scrape_age_seconds",
    "gauge",
    "Age of the engine's own signals; absent before the first.",
    ("backend",),
)
SCRAPE_ERRORS = Metric(
    "motley_scrape_errors_total",
    "counter",
    "Scrapes that gave nothing, by kind.",
    ("backend", "kind"),
)
SIGNAL_PROBLEMS = Metric(
    "motley_signal_problems_total",
    "counter",
    "Unusable values in engines' metrics (NaN, negative, duplicate ...), by kind.",
    ("backend", "kind"),
)
ENGINE_RESTARTS = Metric(
    "motley_engine_restarts_total",
    "counter",
    "Restarts of an engine, as its own counters tell.",
    ("backend",),
)
ENGINE_CHANGES = Metric(
    "motley_engine_identity_changes_total",
    "counter",
    "Times another engine or model answered where this one had.",
    ("backend",),
)
ENGINE_RUNNING = Metric(
    "motley_engine_running", "gauge", "Requests the engine says it computes.", ("backend",)
)
ENGINE_WAITING = Metric(
    "motley_engine_waiting", "gauge", "Requests the engine says it queues.", ("backend",)
)
ENGINE_KV = Metric(
    "motley_engine_kv_usage_ratio", "gauge", "Share of the KV cache in use.", ("backend",)
)
ENGINE_HITS = Metric(
    "motley_engine_prefix_hit_ratio",
    "gauge",
    "Share of prompt tokens found in the prefix cache, about the last minute.",
    ("backend",),
)
ENGINE_PREEMPTIONS = Metric(
    "motley_engine_preemptions_total",
    "counter",
    "Requests the engine preempted or retracted.",
    ("backend",),
)
CORRECTION = Metric(
    "motley_correction_ratio",
    "gauge",
    "Learned duration over the catalogue's, by phase; 2 is half as fast as believed.",
    ("backend", "phase"),
)
CORRECTION_DEVIATION = Metric(
    "motley_correction_deviation_ratio",
    "gauge",
    "Relative standard deviation of the correction.",
    ("backend", "phase"),
)
COEFFICIENT = Metric(
    "motley_iteration_coefficient_seconds",
    "gauge",
    "Learned cost of an engine iteration: per step, prompt token, sequence and context token.",
    ("backend", "coefficient"),
)
COEFFICIENT_DEVIATION = Metric(
    "motley_iteration_coefficient_deviation_ratio",
    "gauge",
    "Relative standard deviation of the coefficient.",
    ("backend", "coefficient"),
)
DRIFTS = Metric(
    "motley_drift_total",
    "counter",
    "Sudden changes of speed noticed.",
    ("backend", "phase", "direction"),
)
DEGRADATION = Metric(
    "motley_degradation_ratio",
    "gauge",
    "Duration now over that when the backend was new, from the drift test.",
    ("backend", "phase"),
)
PREDICTION_BIAS = Metric(
    "motley_prediction_bias_ratio",
    "gauge",
    "Geometric mean of actual over predicted, last minutes (ttft, tpot, e2e).",
    ("backend", "figure"),
)
PREDICTION_ERROR = Metric(
    "motley_prediction_error_ratio",
    "gauge",
    "Relative error of predictions, by quantile.",
    ("backend", "figure", "quantile"),
)
PREDICTION_COVERAGE = Metric(
    "motley_prediction_coverage_ratio",
    "gauge",
    "Share of outcomes within the 90% band drawn from earlier ones.",
    ("backend", "figure"),
)
SLO_ATTAINMENT = Metric(
    "motley_slo_attainment_ratio",
    "gauge",
    "Share of requests that kept all targets of their class, last minutes.",
    ("slo_class",),
)
GOODPUT = Metric(
    "motley_goodput_requests_per_second",
    "gauge",
    "Requests per second that kept all targets of their class, last minutes.",
    ("slo_class",),
)
QOE = Metric(
    "motley_qoe_ratio",
    "gauge",
    "Mean Andes QoE of requests, lost ones counting 0, last minutes; 1: no reader ever waited.",
    ("slo_class",),
)
QUEUED = Metric(
    "motley_queued_requests",
    "gauge",
    "Requests waiting in the router by class, where classes are scheduled.",
    ("slo_class", "model"),
)
CLASS_EVENTS = Metric(
    "motley_class_events_total",
    "counter",
    "What the scheduling of classes did: shed, recalled (before the first byte), aged (sent on "
    "the share kept for the aged), slo_infeasible, unknown_class.",
    ("event", "slo_class"),
)
CLASS_ROOM = Metric(
    "motley_class_room_ratio",
    "gauge",
    "How much of the room below the tightest TPOT target may be filled, learned from those missed.",
    ("model",),
)
PRICE = Metric(
    "motley_price_ratio",
    "gauge",
    "Planner's price of one engine-second, in seconds of delay.",
    ("group",),
)
PLAN_ROUNDS = Metric(
    "motley_plan_rounds_total", "counter", "Rounds of the planner, by outcome.", ("outcome",)
)
PLAN_AGE = Metric(
    "motley_plan_age_seconds",
    "gauge",
    "Age of the prices in force; no series while the policy decides alone.",
)
PLAN_SOLVE = Metric(
    "motley_plan_solve_seconds", "gauge", "How long the newest good round took to solve."
)
PLAN_E2E = Metric(
    "motley_plan_e2e_seconds",
    "gauge",
    "Mean E2E that the last round but one expected, and what came of it.",
    ("figure",),
)
PLACEMENT_STEPS = Metric(
    "motley_placement_steps_total",
    "counter",
    "Replicas started and stopped for the plan, by outcome.",
    ("step", "outcome"),
)
RECORDED = Metric(
    "motley_recorded_requests_total", "counter", "Requests written to the traffic record."
)
RECORD_DROPPED = Metric(
    "motley_record_dropped_total",
    "counter",
    "Requests that the traffic record lost, by reason.",
    ("reason",),
)
POWER = Metric(
    "motley_power_watts",
    "gauge",
    "Power of the backend's cards, by where the figure comes from (dcgm, nvml, prior).",
    ("backend", "source"),
)
ENERGY = Metric(
    "motley_energy_joules_total",
    "counter",
    "Energy of the backend's cards, working or idle.",
    ("backend", "model", "gpu", "source"),
)
TENANT_COST = Metric(
    "motley_cost_usd_total",
    "counter",
    "Rent of the cards, split over tenants by their work; (idle) is what nobody used.",
    METERED,
)
TENANT_ENERGY = Metric(
    "motley_tenant_energy_joules_total",
    "counter",
    "Energy of the cards, split over tenants by their work; (idle) is what nobody used.",
    METERED,
)
METERED_TOKENS = Metric(
    "motley_metered_tokens_total",
    "counter",
    "Prompt and output tokens that cost and energy are divided by.",
    (*METERED, "kind"),
)
METERED_REQUESTS = Metric(
    "motley_metered_requests_total",
    "counter",
    "Completed requests that cost and energy are divided by.",
    METERED,
)
BACKEND_INFO = Metric(
    "motley_backend_info",
    "gauge",
    "Always 1: what the backend is, and the card that its engine or DCGM tells of, if any.",
    ("backend", "group", "gpu", "engine", "model", "accelerator"),
)
DISCOVERY_ERRORS = Metric(
    "motley_discovery_errors_total",
    "counter",
    "Times a source of backends could not be read; its last fleet stands.",
    ("source",),
)
SHARED_UP = Metric(
    "motley_shared_state_up_ratio",
    "gauge",
    "1 while state is exchanged with the other replicas, 0 while this one is on its own.",
)
SHARED_REPLICAS = Metric(
    "motley_shared_replicas_count",
    "gauge",
    "Replicas seen in the last exchange, this one included.",
)
SHARED_LEADER = Metric(
    "motley_shared_leader_ratio", "gauge", "1 if this replica scrapes and plans for all."
)
SHARED_ERRORS = Metric(
    "motley_shared_state_errors_total", "counter", "Exchanges with the other replicas that failed."
)
LEARNED_RESTORED = Metric(
    "motley_learned_restored_count",
    "gauge",
    "What was known again after the start, by kind: lengths (cells), speeds (backends), prompts "
    "(models), policies.",
    ("kind",),
)
LEARNED_RESTORED_AGE = Metric(
    "motley_learned_restored_age_seconds",
    "gauge",
    "Time since that was written, by a gateway before this one.",
)
LEARNED_WRITES = Metric(
    "motley_learned_writes_total",
    "counter",
    "Times that what was learned was to be written, by result (ok, failed, left to another "
    "process).",
    ("result",),
)
LEARNED_WRITTEN_AGE = Metric(
    "motley_learned_written_age_seconds",
    "gauge",
    "Time since it was last written, or since the start.",
)
RELOADS = Metric(
    "motley_config_reloads_total",
    "counter",
    "Times the configuration was read again, by result (ok, refused).",
    ("result",),
)
RELOAD_OK = Metric(
    "motley_config_last_reload_ok_ratio",
    "gauge",
    "1 if the configuration file as it stands is in force, 0 if it was refused.",
)
SHADOW_P99 = Metric(
    "motley_shadow_predicted_p99_seconds",
    "gauge",
    "Predicted P99 of the policy in force (main) and of the shadow, last ten minutes.",
    ("policy", "figure"),
)
SHADOW_AGREEMENT = Metric(
    "motley_shadow_agreement_ratio",
    "gauge",
    "Share of decisions on which shadow and policy agree, last ten minutes.",
)
SHADOW_REGRET = Metric(
    "motley_shadow_regret_seconds",
    "gauge",
    "Mean predicted E2E of the policy in force minus the shadow's; positive: shadow is faster.",
)
CANARY_ATTAINMENT = Metric(
    "motley_canary_slo_attainment_ratio",
    "gauge",
    "Share of requests that kept their SLO, of the canary and of the others (main).",
    ("arm",),
)
CANARY_ROLLBACKS = Metric(
    "motley_canary_rollbacks_total",
    "counter",
    "Canaries taken back because of lost SLO attainment.",
    ("policy",),
)
LABELS_CAPPED = Metric(
    "motley_labels_capped_total",
    "counter",
    "Label values counted as other because of the cap.",
    ("label",),
)
BUILD_INFO = Metric("motley_build_info", "gauge", "Always 1.", ("version", "policy"))

TABLE: tuple[Metric, ...] = (
    *(REQUESTS, ATTEMPTS, REJECTED, FALLBACKS, HEDGES, RETRIES, CONTINUATIONS),
    *(PREFIX_PROMISED, PREFIX_MISSING, KV_EVENTS),
    *(SHARED_REQUESTS, SHARED_BROKEN, KV_MOVED),
    *(TTFT, TPOT, ITL, E2E, WAIT, OVERHEAD, FINISH_REASONS),
    *(PROMPT_TOKENS, CACHED_TOKENS, OUTPUT_TOKENS, TENANT_TOKENS),
    *(IN_FLIGHT, QUEUE_DEPTH, BACKEND_UP, BREAKER, EJECTIONS),
    *(SCRAPE_AGE, SCRAPE_ERRORS, SIGNAL_PROBLEMS, ENGINE_RESTARTS, ENGINE_CHANGES),
    *(ENGINE_RUNNING, ENGINE_WAITING, ENGINE_KV, ENGINE_HITS, ENGINE_PREEMPTIONS),
    *(CORRECTION, CORRECTION_DEVIATION, COEFFICIENT, COEFFICIENT_DEVIATION, DRIFTS, DEGRADATION),
    *(PREDICTION_BIAS, PREDICTION_ERROR, PREDICTION_COVERAGE),
    *(SLO_ATTAINMENT, GOODPUT, QOE, QUEUED, CLASS_EVENTS, CLASS_ROOM, PRICE),
    *(PLAN_ROUNDS, PLAN_AGE, PLAN_SOLVE, PLAN_E2E, PLACEMENT_STEPS),
    *(LEARNED_RESTORED, LEARNED_RESTORED_AGE, LEARNED_WRITES, LEARNED_WRITTEN_AGE),
    *(DISCOVERY_ERRORS, RELOADS, RELOAD_OK),
    *(SHADOW_P99, SHADOW_AGREEMENT, SHADOW_REGRET, CANARY_ATTAINMENT, CANARY_ROLLBACKS),
    *(SHARED_UP, SHARED_REPLICAS, SHARED_LEADER, SHARED_ERRORS),
    *(POWER, ENERGY, TENANT_COST, TENANT_ENERGY, METERED_TOKENS, METERED_REQUESTS),
    *(RECORDED, RECORD_DROPPED, LABELS_CAPPED, BACKEND_INFO, BUILD_INFO),
)
"""All of them, in the order of the documentation."""


def markdown() -> str:
    """The table as documentation."""
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for metric in TABLE:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |")
    return "\n".join(lines) + "\n"
