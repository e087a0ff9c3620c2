"""Flags of production-stack, SGLang's routers and vllm-router, in Motley's words.

Where they mean the same they are taken; where they do not, the error says what to use instead.
Everything ends up as a flag of ``motley serve`` or as ``--set section.name=value``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from router.domain.errors import ConfigError

Rewrite = Callable[[list[str]], list[str]]

POLICIES: Mapping[str, str] = {
    "roundrobin": "round-robin",
    "round_robin": "round-robin",
    "random": "random",
    "prefixaware": "production-stack-prefixaware",
    "loadaware": "production-stack-loadaware",
    "cache_aware": "sglang-cache-aware",
    "power_of_two": "power-of-two",
    "least_load": "smg-least-load",
    "kv_aware": "vllm-router-kv-aware",
}
"""Their policies that are implemented here as well."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag of theirs.

    Attributes:
        takes: how many values: 0, 1, or -1 for all up to the next flag.
        rewrite: from its values to our arguments.
    """

    takes: int
    rewrite: Rewrite


def _set(path: str) -> Flag:
    return Flag(1, lambda values: ["--set", f"{path}={values[0]}"])


def _fixed(*arguments: str) -> Flag:
    return Flag(0, lambda _: list(arguments))


def _no(takes: int, remedy: str) -> Flag:
    def refuse(_: list[str]) -> list[str]:
        raise ConfigError(remedy)

    return Flag(takes, refuse)


def _policy(values: list[str]) -> list[str]:
    return ["--policy", POLICIES.get(values[0], values[0])]


def _quoted(text: str) -> str:
    """As YAML takes it, whatever it holds."""
    return "'" + text.replace("'", "''") + "'"


def _joined_urls(values: list[str]) -> list[str]:
    if not values:
        raise ConfigError("--worker-urls needs at least one URL")
    return ["--static-backends", ",".join(values)]


def _aliases(values: list[str]) -> list[str]:
    pairs = [pair.partition(":") for pair in values[0].split(",") if pair]
    wrong = [alias for alias, mark, model in pairs if not (alias and mark and model)]
    if wrong or not pairs:
        raise ConfigError("--static-aliases takes alias:model,alias:model")
    return [part for a, _, m in pairs for part in ("--set", f'aliases."{a}"={m}')]


_CACHE_AWARE = {
    "--cache-threshold": "policy.params.cache_threshold",
    "--balance-abs-threshold": "policy.params.balance_abs",
    "--balance-rel-threshold": "policy.params.balance_rel",
}
FLAGS: Mapping[str, Flag] = {
    # production-stack
    "--routing-logic": Flag(1, _policy),
    "--static-aliases": Flag(1, _aliases),
    "--engine-stats-interval": _set("telemetry.scrape_interval_s"),
    "--static-backend-health-check-interval": _set("reliability.health_interval_s"),
    "--static-backend-health-checks": _fixed(),
    "--max-instance-failover-reroute-attempts": _set("reliability.max_retries"),
    "--otel-endpoint": _set("telemetry.otlp_endpoint"),
    "--log-stats": _fixed(),
    "--request-stats-window": _no(1, "--request-stats-window: choose windows in Prometheus"),
    "--dynamic-config-yaml": _no(
        1, "--dynamic-config-yaml: give the file with --config; it is read again when it changes"
    ),
    "--dynamic-config-json": _no(
        1, "--dynamic-config-json: give the file with --config; it is read again when it changes"
    ),
    "--session-key": _no(
        1, "--session-key: sessions follow x-session-id; prefixes of prompts are used anyway"
    ),
    "--static-model-labels": _no(1, "--static-model-labels: set labels under backends in a file"),
    "--static-model-types": _no(1, "--static-model-types: engines say themselves what they can do"),
    "--callbacks": _no(1, "--callbacks: use telemetry.record, or OpenTelemetry"),
    "--feature-gates": _no(1, "--feature-gates: there are none; every feature has its setting"),
    "--sentry-dsn": _no(1, "--sentry-dsn: use telemetry.otlp_endpoint"),
    # SGLang's routers, vllm-router
    "--worker-urls": Flag(-1, _joined_urls),
    "--api-key": Flag(1, lambda values: ["--set", f"server.api_keys=[{_quoted(values[0])}]"]),
    "--request-timeout-secs": _set("reliability.total_timeout_s"),
    "--max-payload-size": _set("server.max_body_bytes"),
    "--queue-size": _set("reliability.queue_size"),
    "--queue-timeout-secs": _set("reliability.queue_timeout_s"),
    "--retry-max-retries": _set("reliability.max_retries"),
    "--disable-retries": _fixed("--set", "reliability.max_retries=0"),
    "--cb-failure-threshold": _set("reliability.breaker.failure_threshold"),
    "--cb-timeout-duration-secs": _set("reliability.breaker.open_s"),
    "--health-check-interval-secs": _set("reliability.health_interval_s"),
    "--health-check-timeout-secs": _set("reliability.health_timeout_s"),
    "--health-failure-threshold": _set("reliability.health_failures"),
    "--worker-startup-timeout-secs": _no(
        1,
        "--worker-startup-timeout-secs: requests wait for a worker; use --queue-timeout-secs",
    ),
    "--load-monitor-interval": _set("telemetry.scrape_interval_s"),
    "--shutdown-grace-period-secs": _set("reliability.drain_timeout_s"),
    "--otlp-traces-endpoint": _set("telemetry.otlp_endpoint"),
    "--tls-cert-path": _set("server.tls.cert_file"),
    "--tls-key-path": _set("server.tls.key_file"),
    **{name: _set(path) for name, path in _CACHE_AWARE.items()},
    "--log-json": _fixed("--log-format", "json"),
    "--retry-initial-backoff-ms": _no(
        1, "--retry-initial-backoff-ms: a retry goes to another backend, at once; leave it out"
    ),
    "--max-concurrent-requests": _no(
        1, "--max-concurrent-requests: limit keys (access.keys[].max_concurrent), or queue_size"
    ),
    "--rate-limit-tokens-per-second": _no(
        1, "--rate-limit-tokens-per-second: limit keys (motley keys create --requests-per-minute)"
    ),
    "--prometheus-port": _no(
        1, "--prometheus-port: /metrics is on the API's port; or set admin.port"
    ),
    "--prometheus-host": _no(1, "--prometheus-host: set admin.host and admin.port"),
    "--pd-disaggregation": _no(0, "--pd-disaggregation: set the backends' roles in a file"),
    "--prefill": _no(-1, "--prefill: set the backends' roles in a file"),
    "--decode": _no(-1, "--decode: set the backends' roles in a file"),
    "--eviction-interval-secs": _no(
        1, "--eviction-interval-secs: prefixes are forgotten at KV capacity"
    ),
    "--max-tree-size": _no(1, "--max-tree-size: prefixes are forgotten at KV capacity"),
    "--request-id-headers": _no(-1, "--request-id-headers: x-request-id is read and answered"),
    "--model-path": _no(1, "--model-path: engines tokenize; name the model with --static-models"),
}
"""Theirs; ``--host``, ``--port``, ``--policy``, ``--static-backends``, ``--static-models``,
``--log-level`` and ``--log-format`` are spelled the same here."""


def translated(arguments: Sequence[str]) -> list[str]:
    """Arguments of ``motley serve``, with others' spellings put into ours.

    Raises:
        ConfigError: a flag of theirs that has no meaning here; says what to use instead.
    """
    ours: list[str] = []
    pods: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        name, mark, inline = rest.pop(0).partition("=")
        if name == "--policy":
            values = [inline] if mark else _taken(rest, 1, name)
            ours += _policy(values)
        elif name == "--service-discovery":
            _service_discovery(pods, [inline] if mark else _taken(rest, -1, name))
        elif name in _PODS:
            values = [inline] if mark else _taken(rest, -1 if name == "--selector" else 1, name)
            pods |= {_PODS[name]: ",".join(values), "flag": name}
        elif name in FLAGS:
            flag = FLAGS[name]
            values = [inline] if mark else _taken(rest, flag.takes, name)
            ours += flag.rewrite(values)
        else:
            ours.append(f"{name}{mark}{inline}")
    _check_cache_aware(arguments)
    return ours + _discovered(pods)


def _check_cache_aware(theirs: Sequence[str]) -> None:
    """Their default policy has these parameters; ours does not."""
    names = [argument.partition("=")[0] for argument in theirs]
    used = [name for name in names if name in _CACHE_AWARE]
    if used and not {"--policy", "--routing-logic", "--config", "--fleet", "-c"} & set(names):
        raise ConfigError(
            f"{used[0]}: goes with --policy cache_aware; leave it out to have Motley's own policy, "
            "which needs no thresholds"
        )


def _taken(rest: list[str], count: int, name: str) -> list[str]:
    values: list[str] = []
    while rest and not rest[0].startswith("--") and len(values) != count:
        values.append(rest.pop(0))
    if 0 < count != len(values):
        raise ConfigError(f"{name} needs a value")
    return values


_PODS: Mapping[str, str] = {
    # production-stack
    "--k8s-namespace": "namespace",
    "--k8s-label-selector": "pod_selector",
    "--k8s-port": "port",
    # SGLang's routers
    "--selector": "pod_selector",
    "--service-discovery-namespace": "namespace",
    "--service-discovery-port": "port",
}
"""Theirs for ready pods by label, and the field of ``discovery.kubernetes`` that means the same."""

_PORT = "8000"
"""Theirs, where none is given."""


def _service_discovery(pods: dict[str, str], values: list[str]) -> None:
    """``static`` or ``k8s``; nothing means Kubernetes, as SGLang's routers have it."""
    if values not in (["static"], ["k8s"], []):
        raise ConfigError(
            f"--service-discovery: static and k8s are known here, not {' '.join(values)!r}; for "
            "DNS and files see deploy/fleets/discovery.yaml"
        )
    if values != ["static"]:
        pods["kind"] = "k8s"


def _discovered(pods: Mapping[str, str]) -> list[str]:
    """The setting that has the same pods for backends."""
    if not pods:
        return []
    if "kind" not in pods:
        raise ConfigError(f"{pods['flag']}: goes with --service-discovery k8s")
    selector = pods.get("pod_selector", "")
    if not selector:
        raise ConfigError(
            "--service-discovery: k8s needs --k8s-label-selector, for example app=vllm"
        )
    port = pods.get("port", _PORT)
    if not port.isdigit():
        raise ConfigError(f"--k8s-port must be a number, not {port!r}")
    fields = {"pod_selector": _quoted(selector), "port": port, "ask_engines": "true"}
    if "namespace" in pods:
        fields["namespace"] = _quoted(pods["namespace"])
    told = ", ".join(f"{name}: {value}" for name, value in fields.items())
    return ["--set", f"discovery.kubernetes=[{{{told}}}]"]
