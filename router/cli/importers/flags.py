"""Command lines: production-stack's router, SGLang's routers, vllm-router."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence

from router.cli.importers.found import UNKNOWN, Engine, Found, Service, base_url, digest, shown
from router.cli.spellings import FLAGS
from router.domain.errors import ConfigError

Take = Callable[[Found, list[str]], None]

PROGRAMS: Mapping[str, tuple[str, str]] = {
    "vllm_router": ("production-stack's router", "vllm"),
    "vllm-router": ("vllm-router, or production-stack's router", "vllm"),
    "sglang_router": ("SGLang's router", "sglang"),
    "sglang-router": ("SGLang's router", "sglang"),
    "sgl-model-gateway": ("SGLang's router", "sglang"),
    "amg": ("SGLang's router", "sglang"),
    "smg": ("SMG", "sglang"),
}
"""By a word of the command: what it is, and which engine stands behind it unless it is told."""


def looks_like_command(text: str) -> bool:
    """Whether a text is a command line of a router that we know."""
    flags = ("--worker-urls", "--static-backends", "--service-discovery")
    return any(flag in text for flag in flags) or bool(_program(text.split()))


def read_command(text: str) -> Found:
    """Take a command line apart; comments and line ends with backslashes are fine.

    Raises:
        ConfigError: quotes that do not close, or a flag without its value.
    """
    try:
        words = shlex.split(re.sub(r"\\\r?\n", " ", text), comments=True)
    except ValueError as error:
        raise ConfigError(f"not a command line: {error}") from error
    origin, engine = _program(words) or ("a router's command line", "vllm")
    at = next((n for n, word in enumerate(words) if word.startswith("--")), len(words))
    return read_flags(words[at:], origin, engine)


def _program(words: Sequence[str]) -> tuple[str, str] | None:
    for word in words:
        if word.startswith("--"):
            return None
        name = word.rsplit("/", 1)[-1].partition(".")[0]
        if name in PROGRAMS:
            return PROGRAMS[name]
    return None


def read_flags(arguments: Sequence[str], origin: str, engine: str) -> Found:
    """Take flags apart.

    Raises:
        ConfigError: a flag without its value.
    """
    found = Found(origin)
    given = _parsed(arguments, found)
    for name, values in given:
        _take(found, name, values)
    _fleet(found, dict(given), engine)
    return found


def _parsed(arguments: Sequence[str], found: Found) -> list[tuple[str, list[str]]]:
    """(flag, values); a value belongs to the flag before it."""
    given: list[tuple[str, list[str]]] = []
    for word in arguments:
        if word.startswith("--"):
            name, mark, inline = word.partition("=")
            given.append((name.replace("--router-", "--", 1), [inline] if mark else []))
        elif given:
            given[-1][1].append(word)
        else:
            found.lose(word, "stands before the first flag")
    return given


FLEET = frozenset(
    {
        *("--worker-urls", "--static-backends", "--static-models", "--service-discovery"),
        *("--selector", "--service-discovery-port", "--service-discovery-namespace"),
        *("--k8s-port", "--k8s-namespace", "--k8s-label-selector", "--model-path"),
    }
)
"""Flags that say who serves; read together."""


def _take(found: Found, name: str, values: list[str]) -> None:
    text = shown(name, values)
    if name in FLEET:
        return
    if name in OWN:
        if not values and name not in SWITCHES:
            raise ConfigError(f"{name} needs a value")
        OWN[name](found, values)
    elif name in REASONS:
        found.lose(text, REASONS[name])
    elif name in FLAGS:
        _through_spellings(found, name, values, text)
    else:
        found.lose(text, UNKNOWN)


def _through_spellings(found: Found, name: str, values: list[str], text: str) -> None:
    """What ``motley serve`` takes, the file takes as well."""
    flag = FLAGS[name]
    if flag.takes > 0 and len(values) < flag.takes:
        raise ConfigError(f"{name} needs a value")
    try:
        ours = flag.rewrite(values)
    except ConfigError as error:
        found.lose(text, str(error).removeprefix(f"{name}: "))
        return
    pairs = list(zip(ours[::2], ours[1::2], strict=False))
    found.settings += [value for option, value in pairs if option == "--set"]
    if not pairs:
        found.notes.append(f"{text}: nothing to set, Motley does so anyway")
    for option, value in pairs:
        if option != "--set":
            found.notes.append(f"{text}: a flag of 'motley serve' ({option} {value})")


def _policy(found: Found, values: list[str]) -> None:
    found.policy = values[0]


def _interval(name: str) -> Take:
    return lambda found, values: found.scrape_every(name, float(values[0]))


def _api_key(found: Found, values: list[str]) -> None:
    found.set("server.api_keys", [digest(values[0])])
    found.notes.append(
        "--api-key: clients show the same key, the file holds its digest. If it was the engines' "
        "key, put it into an environment variable and name that in upstream.api_key_env"
    )


def _aliases(found: Found, values: list[str]) -> None:
    for pair in filter(None, values[0].split(",")):
        alias, _, model = pair.partition(":")
        if alias and model:
            found.aliases[alias] = model
        else:
            found.lose(f"--static-aliases {pair}", "not alias:model")


def _batches(found: Found, values: list[str]) -> None:
    found.set("batch.directory", values[0] if values else "motley-batches")


def _log_level(found: Found, values: list[str]) -> None:
    level = "warning" if values[0] == "warn" else values[0]
    found.notes.append(f"--log-level {values[0]}: a flag of 'motley serve' (--log-level {level})")


def _door(name: str) -> Take:
    return lambda found, values: found.set(f"server.{name}", values[0])


OWN: Mapping[str, Take] = {
    "--host": _door("host"),
    "--port": _door("port"),
    "--policy": _policy,
    "--routing-logic": _policy,
    "--engine-stats-interval": _interval("--engine-stats-interval"),
    "--load-monitor-interval": _interval("--load-monitor-interval"),
    "--api-key": _api_key,
    "--static-aliases": _aliases,
    "--enable-batch-api": _batches,
    "--file-storage-path": _batches,
    "--log-level": _log_level,
}
SWITCHES = frozenset({"--enable-batch-api"})
"""Flags of ``OWN`` that take no value."""

_PD = "prefill and decode on different engines: give the backends roles by hand"
_LMCACHE = "LMCache's controller is not asked; prefixes are followed here"
_TRACES = "set telemetry.otlp_endpoint (OTLP over HTTP, port 4318)"
_TOKENS = "engines tokenize, template and parse; nothing to configure here"
_RETRY = "a retry goes to another backend, at once"
_STORE = "conversations are not stored"
REASONS: Mapping[str, str] = {
    "--k8s-service-discovery-type": "pods are always reached by their addresses",
    "--k8s-watcher-timeout-seconds": "a broken watch is taken up again by itself",
    "--backend-health-check-timeout-seconds": "set reliability.health_timeout_s",
    "--health-success-threshold": "a backend that is well again starts slowly instead",
    "--health-check-endpoint": "/health is asked, or /v1/models where there is none",
    "--disable-health-check": "unhealthy backends get no requests; this cannot be switched off",
    "--disable-circuit-breaker": "raise reliability.breaker.failure_threshold",
    "--cb-success-threshold": "one success closes the breaker, then traffic grows slowly",
    "--cb-window-duration-secs": "failures in a row count, not in a window",
    "--session-key": "sessions follow x-session-id; prefixes of prompts are used anyway",
    "--request-stats-window": "choose windows in Prometheus",
    "--log-stats-interval": "statistics are metrics (/metrics), not log lines",
    "--request-rewriter": "requests are forwarded untouched",
    "--file-storage-class": "files are on local disk (batch.directory)",
    "--batch-processor": "batches run in the gateway, in the bulk class",
    "--sentry-traces-sample-rate": _TRACES,
    "--sentry-profile-session-sample-rate": _TRACES,
    "--otel-endpoint": _TRACES,
    "--otel-service-name": "set OTEL_SERVICE_NAME",
    "--otel-secure": "write https:// in telemetry.otlp_endpoint",
    "--enable-trace": _TRACES,
    "--lmcache-controller-port": _LMCACHE,
    "--lmcache-health-check-interval": _LMCACHE,
    "--lmcache-worker-timeout": _LMCACHE,
    "--kv-aware-threshold": _LMCACHE,
    "--prefill-model-labels": _PD,
    "--decode-model-labels": _PD,
    "--prefill-policy": _PD,
    "--decode-policy": _PD,
    "--prefill-selector": _PD,
    "--decode-selector": _PD,
    "--mini-lb": _PD,
    "--retry-max-backoff-ms": _RETRY,
    "--retry-backoff-multiplier": _RETRY,
    "--retry-jitter-factor": _RETRY,
    "--dp-aware": "each data-parallel rank is an engine with a URL of its own",
    "--enable-igw": "several models are always served; list their backends",
    "--log-dir": "the log goes to standard error",
    "--cors-allowed-origins": "answer CORS in the proxy in front",
    "--tokenizer-path": _TOKENS,
    "--chat-template": _TOKENS,
    "--reasoning-parser": _TOKENS,
    "--tool-call-parser": _TOKENS,
    "--history-backend": _STORE,
    "--mcp-config-path": "tools are called by clients and engines, not here",
    "--worker-startup-check-interval": "set reliability.health_interval_s",
    "--max-idle-secs": "sessions are not pinned by hand",
    "--assignment-mode": "sessions are not pinned by hand",
    "--bucket-adjust-interval-secs": "the planner finds the buckets itself (planner.enabled)",
    "--static-model-labels": _PD,
}
"""Flags without an equivalent, beside those that ``motley serve`` refuses with a remedy."""


def _fleet(found: Found, given: Mapping[str, list[str]], kind: str) -> None:
    urls = given.get("--worker-urls", []) or _listed(given, "--static-backends")
    models = _listed(given, "--static-models") or given.get("--model-path", [])
    if len(models) not in (0, 1, len(urls)) and urls:
        raise ConfigError(f"{len(models)} models are named for {len(urls)} backends")
    for n, url in enumerate(urls):
        if url.startswith("grpc"):
            found.lose(url, "engines are spoken to over HTTP")
            continue
        served = models[n if len(models) > 1 else 0] if models else ""
        found.engines.append(Engine(base_url(url), served=served, kind=kind))
    if given.get("--service-discovery") not in (None, ["static"]):
        _discovery(found, given, kind)


POD_PORT = 8000
"""Theirs, where none is given."""


def _listed(given: Mapping[str, list[str]], name: str) -> list[str]:
    return [item.strip() for word in given.get(name, []) for item in word.split(",") if item]


def _discovery(found: Found, given: Mapping[str, list[str]], kind: str) -> None:
    if given["--service-discovery"] == ["external-only"]:
        found.lose("--service-discovery external-only", "list providers' URLs under backends")
        return
    selector = ",".join(given.get("--selector", []) or _listed(given, "--k8s-label-selector"))
    if not selector:
        found.lose("--service-discovery", "it selects no pods: give --selector, or list backends")
        return
    namespace = given.get("--service-discovery-namespace", []) or given.get("--k8s-namespace", [])
    port = given.get("--service-discovery-port", []) or given.get("--k8s-port", [])
    fields: dict[str, object] = {"pod_selector": selector, "ask_engines": True}
    if namespace:
        fields["namespace"] = namespace[0]
    fields["port"] = int(port[0]) if port else POD_PORT
    found.services.append(Service(kind=kind, fields=fields))
    found.notes.append(
        "discovery: a pod's card is read off its node's labels (nvidia.com/gpu.product), its "
        "annotation motley.dev/gpu, or said by --gpu"
    )
