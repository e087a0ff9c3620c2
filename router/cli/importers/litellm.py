"""LiteLLM's proxy: ``config.yaml`` with a ``model_list``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from router.cli.importers.found import Engine, Found, base_url, digest, listing, mapping

KINDS: Mapping[str, str] = {
    "hosted_vllm": "vllm",
    "vllm": "vllm",
    "sglang": "sglang",
    "openai": "",
    "openai_like": "",
    "custom_openai": "",
    "text-completion-openai": "",
    "litellm_proxy": "",
}
"""Providers that may be an engine of one's own, and which one."""

NO_KEYS = ("", "none", "empty", "dummy", "fake", "fake-key", "anything", "sk-none")
_SETTLED = "always so here"
_WAITS = "requests wait for a slot of the right engine; limit keys (motley keys create)"
PARAMS_WHY: Mapping[str, str] = {
    "rpm": _WAITS,
    "tpm": _WAITS,
    "max_parallel_requests": _WAITS,
    "weight": "what a card can do is known by its type, and learned",
    "order": "fast and slow cards share one pool; the policy chooses",
    "timeout": "set reliability.total_timeout_s, for all",
    "stream_timeout": "set reliability.first_byte_timeout_s and idle_timeout_s, for all",
    "tags": "keys and service classes take their place (access.keys)",
    "max_retries": "set reliability.max_retries, for all",
    "temperature": "requests are forwarded untouched",
    "max_tokens": "requests are forwarded untouched",
}
ROUTER_WHY: Mapping[str, str] = {
    "enable_pre_call_checks": _SETTLED + ": prompts that do not fit an engine are not sent there",
    "routing_strategy_args": "the policy has parameters of its own (policy.params)",
    "retry_after": "a retry goes to another backend, at once",
    "retry_policy": "4xx is never retried, 429 and 503 count as busy, the rest is",
    "allowed_fails_policy": "4xx never counts against a backend",
    "context_window_fallbacks": "long prompts go to backends with room for them",
    "content_policy_fallbacks": "answers are not judged",
    "default_fallbacks": "name them for each model (fallbacks)",
    "stream_timeout": "set reliability.first_byte_timeout_s and idle_timeout_s",
    "cache_responses": "answers are not kept; engines keep prefixes",
    "redis_password": "put it into shared.url: redis://:PASSWORD@HOST:PORT/0",
    "set_verbose": "motley serve --log-level debug",
    "debug_level": "motley serve --log-level debug",
    "provider_budget_config": "budgets belong to keys (motley keys create --usd-per-day)",
}
LITELLM_WHY: Mapping[str, str] = {
    "drop_params": "requests are forwarded untouched",
    "set_verbose": "motley serve --log-level debug",
    "json_logs": "motley serve --log-format json",
    "cache": "answers are not kept; engines keep prefixes",
    "cache_params": "answers are not kept; engines keep prefixes",
    "callbacks": "/metrics is Prometheus; traces: telemetry.otlp_endpoint; facts: telemetry.record",
    "success_callback": "/metrics is Prometheus; facts of requests: telemetry.record",
    "failure_callback": "/metrics is Prometheus; facts of requests: telemetry.record",
    "max_budget": "budgets belong to keys (motley keys create --usd-per-day)",
    "budget_duration": "budgets are per UTC day",
    "context_window_fallbacks": "long prompts go to backends with room for them",
    "default_fallbacks": "name them for each model (fallbacks)",
    "force_ipv4": "give engines by address",
    "modify_params": "requests are forwarded untouched",
    "redact_user_api_key_info": "only digests are ever kept",
    "turn_off_message_logging": _SETTLED + ": content is never logged",
}
GENERAL_WHY: Mapping[str, str] = {
    "database_url": "keys are digests in a file (motley keys create); spend is /debug/costs",
    "store_model_in_db": "backends are in the file, discovered, or registered (POST /workers)",
    "alerting": "see deploy/prometheus/rules",
    "alerting_threshold": "see deploy/prometheus/rules",
    "max_parallel_requests": "limit keys (motley keys create --max-concurrent)",
    "global_max_parallel_requests": "reliability.queue_size bounds what waits",
    "allowed_routes": "admin paths have a port of their own (admin.port)",
    "proxy_batch_write_at": "there is no database",
    "enable_jwt_auth": "set access.oidc",
    "litellm_jwtauth": "set access.oidc",
    "health_check_interval": "set reliability.health_interval_s",
    "background_health_checks": _SETTLED,
}
STRATEGIES: Mapping[str, str] = {
    "simple-shuffle": "weighted-random",
    "least-busy": "least-request",
    "latency-based-routing": "aibrix-least-latency",
}
"""Their strategies, and what comes nearest here."""


def is_config(content: Mapping[str, Any]) -> bool:
    """Whether a YAML file looks like LiteLLM's."""
    return "model_list" in content


def read_config(content: Mapping[str, Any]) -> Found:
    """Take a proxy's configuration apart.

    Raises:
        ConfigError: a section is of the wrong kind.
    """
    found = Found("LiteLLM's proxy config")
    for n, item in enumerate(listing(content.get("model_list"), "model_list")):
        _deployment(found, mapping(item, f"model_list[{n}]"), f"model_list[{n}]")
    _litellm(found, mapping(content.get("litellm_settings"), "litellm_settings"))
    _router(found, mapping(content.get("router_settings"), "router_settings"))
    _general(found, mapping(content.get("general_settings"), "general_settings"))
    for name in mapping(content.get("environment_variables"), "environment_variables"):
        found.lose(f"environment_variables.{name}", "set it where the gateway is started")
    known = ("model_list", "litellm_settings", "router_settings", "general_settings")
    found.lose_rest("", content, (*known, "environment_variables"), {})
    return found


def _deployment(found: Found, item: Mapping[str, Any], place: str) -> None:
    params = mapping(item.get("litellm_params"), f"{place}.litellm_params")
    info = mapping(item.get("model_info"), f"{place}.model_info")
    public = str(item.get("model_name") or "")
    provider, model = _provider(params)
    url = params.get("api_base") or params.get("base_url")
    why = _unusable(provider, str(url or ""))
    if why:
        found.lose(f"{place} ({public}: {params.get('model')})", why)
        return
    engine = Engine(base_url(str(url)), served=model, public=public, kind=KINDS[provider])
    engine.name = re.sub(r"[^A-Za-z0-9._:@-]+", "-", str(info.get("id") or ""))
    _key(found, engine, str(params.get("api_key") or ""), place)
    _prices(found, public, {**info, **params})
    found.engines.append(engine)
    taken = {"model", "api_base", "base_url", "api_key", "custom_llm_provider", *_PRICES}
    found.lose_rest(f"{place}.litellm_params", params, taken, PARAMS_WHY)
    found.lose_rest(f"{place}.model_info", info, {"id", *_PRICES}, _INFO_WHY)


def _provider(params: Mapping[str, Any]) -> tuple[str, str]:
    """The provider, and the model without it."""
    told = str(params.get("model") or "")
    if params.get("custom_llm_provider"):
        provider = str(params["custom_llm_provider"])
        return provider, told.removeprefix(f"{provider}/")
    provider, mark, model = told.partition("/")
    return (provider, model) if mark else ("openai", told)


def _unusable(provider: str, url: str) -> str:
    """Why no request can be sent there; empty if one can."""
    if provider not in KINDS:
        return f"{provider} is no vLLM or SGLang of your own: keep LiteLLM for it, beside Motley"
    if not url:
        return "no engine of your own (no api_base): keep LiteLLM for it, beside Motley"
    if url.startswith("os.environ/"):
        return f"write the URL that is in {url[11:]}"
    return ""


_PRICES = {"input_cost_per_token": "input", "output_cost_per_token": "output"}
_INFO_WHY = {
    "mode": "engines say themselves what they can do",
    "base_model": "the model is known by what the engine serves",
    "max_tokens": "engines tell how long a context may be (max_model_len of a backend)",
    "max_input_tokens": "engines tell how long a context may be (max_model_len of a backend)",
    "supports_function_calling": "requests are forwarded untouched",
    "supports_vision": "requests are forwarded untouched",
    "access_groups": "keys name the models they may use (motley keys create --model)",
}


def _key(found: Found, engine: Engine, key: str, place: str) -> None:
    variable = key.removeprefix("os.environ/")
    if variable != key:
        engine.key_env = variable
    elif key.lower() not in NO_KEYS:
        engine.key_env = "VLLM_API_KEY"
        found.notes.append(
            f"{place}: its API key is not copied; put it into the environment variable "
            "VLLM_API_KEY, or name another under upstream"
        )


def _prices(found: Found, public: str, told: Mapping[str, Any]) -> None:
    for key, side in _PRICES.items():
        if told.get(key):
            per_million = round(float(told[key]) * 1e6, 6)
            found.prices.setdefault(public, {})[f"{side}_usd_per_mtok"] = per_million


def _litellm(found: Found, section: Mapping[str, Any]) -> None:
    if "num_retries" in section:
        found.set("reliability.max_retries", section["num_retries"])
    if section.get("request_timeout"):
        found.set("reliability.total_timeout_s", section["request_timeout"])
    _fallbacks(found, section.get("fallbacks"), "litellm_settings.fallbacks")
    taken = ("num_retries", "request_timeout", "fallbacks")
    found.lose_rest("litellm_settings", section, taken, LITELLM_WHY)


def _router(found: Found, section: Mapping[str, Any]) -> None:
    found.policy = str(section.get("routing_strategy") or "")
    for theirs, ours in _PLAIN.items():
        if section.get(theirs) is not None:
            found.set(ours, section[theirs])
    if section.get("allowed_fails") is not None:
        found.set("reliability.breaker.failure_threshold", int(section["allowed_fails"]) + 1)
    if section.get("cooldown_time"):
        seconds = float(section["cooldown_time"])
        found.set("reliability.breaker.open_s", seconds)
        found.set("reliability.breaker.max_open_s", max(30.0, seconds))
    for alias, group in mapping(section.get("model_group_alias"), "model_group_alias").items():
        found.aliases[str(alias)] = str(group["model"] if isinstance(group, dict) else group)
    _fallbacks(found, section.get("fallbacks"), "router_settings.fallbacks")
    _redis(found, section)
    found.lose_rest("router_settings", section, _ROUTER_TAKEN, ROUTER_WHY)


_PLAIN = {"num_retries": "reliability.max_retries", "timeout": "reliability.total_timeout_s"}
_ROUTER_TAKEN = (
    *("routing_strategy", "num_retries", "timeout", "allowed_fails", "cooldown_time"),
    *("model_group_alias", "fallbacks", "redis_host", "redis_port", "redis_url", "redis_db"),
)


def _redis(found: Found, section: Mapping[str, Any]) -> None:
    url, host = section.get("redis_url"), section.get("redis_host")
    told = str(url or host or "")
    if told.startswith("os.environ/"):
        found.lose("router_settings.redis", f"write what is in {told[11:]} into shared.url")
    elif url:
        found.set("shared.url", told)
    elif host:
        port = section.get("redis_port") or 6379
        number = port if str(port).isdecimal() else 6379
        found.set("shared.url", f"redis://{quote(told)}:{number}/{section.get('redis_db') or 0}")


def _fallbacks(found: Found, given: Any, place: str) -> None:
    for item in listing(given, place):
        for model, others in mapping(item, place).items():
            found.fallbacks[str(model)] = [str(other) for other in others]
            found.notes.append(
                f"{place}: {model} falls back where it would have to wait, and only for requests "
                "that say 'x-motley-fallback: allow'"
            )


def _general(found: Found, section: Mapping[str, Any]) -> None:
    key = str(section.get("master_key") or "")
    if key.startswith("os.environ/"):
        found.lose(
            "general_settings.master_key",
            f"make a key (motley keys create NAME --admin), or put 'sha256:' and the digest of "
            f"{key[11:]} into server.api_keys",
        )
    elif key:
        found.set("server.api_keys", [digest(key)])
        found.notes.append("general_settings.master_key: works as before; the file has its digest")
    found.lose_rest("general_settings", section, ("master_key",), GENERAL_WHY)
