"""Which engine is behind a URL, and how it is set up, as far as it tells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from router.domain.errors import ConfigError, MotleyError
from router.domain.fleet import EngineName
from router.domain.state import EngineSignals
from simulator.live.client import EngineClient
from telemetry.engine_metrics import Reading, read
from telemetry.exposition import Exposition, Problems

ENGINES: tuple[EngineName, ...] = ("vllm", "sglang")


class BusyEngineError(MotleyError):
    """The engine serves others: what would be measured is their load, too."""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """How a live engine is set up; ``None`` where it does not tell.

    Attributes:
        engine: "vllm" or "sglang".
        version: such as "0.32.0"; empty when unknown.
        model: the name it serves.
        max_model_len: longest prompt plus output.
        kv_capacity_tokens: size of the KV cache.
        block_tokens: tokens per KV block (SGLang: page).
        prefix_caching: whether prompts stay in the cache.
        max_num_seqs: most requests running at once.
        max_num_batched_tokens: token budget of an iteration (SGLang: of a prefill chunk).
        schedule_ahead: whether it plans an iteration while another runs.
        queue_order: SGLang's ``schedule_policy``.
    """

    engine: EngineName
    version: str
    model: str
    max_model_len: int
    kv_capacity_tokens: int | None = None
    block_tokens: int | None = None
    prefix_caching: bool | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    schedule_ahead: bool | None = None
    queue_order: str | None = None


async def identify(client: EngineClient, model: str = "") -> EngineFacts:
    """Find out what is there, and point the client at its model.

    Args:
        client: to the engine.
        model: which of the served models; the first when empty.

    Raises:
        ConfigError: nothing answers, it serves no such model, or it is neither vLLM nor SGLang.
    """
    served = await _served(client, model)
    client.model = str(served["id"])
    reading = read(await client.page("/metrics") or b"", "vllm", client.clock())
    info = await client.json("/get_server_info")
    engine: EngineName = "sglang" if info or reading.engine == "sglang" else "vllm"
    if reading.engine not in ENGINES and not info:
        raise ConfigError(
            f"{client.url} is neither vLLM nor SGLang, or hides /metrics (SGLang: start it with "
            "--enable-metrics)"
        )
    base = EngineFacts(
        engine,
        version="",
        model=client.model,
        max_model_len=int(served.get("max_model_len") or 0),
        kv_capacity_tokens=reading.signals.kv_capacity_tokens,
    )
    facts = _sglang(base, info) if engine == "sglang" else await _vllm(base, client)
    if facts.max_model_len < 2:
        raise ConfigError(f"{client.url}/v1/models does not tell max_model_len")
    return facts


async def require_idle(client: EngineClient) -> None:
    """Refuse to measure an engine that serves others.

    Raises:
        BusyEngineError: requests are running or waiting, or the engine does not tell.
    """
    signals = await signals_of(client)
    if signals.running is None:
        raise BusyEngineError(
            f"{client.url} does not tell how many requests it runs; if nobody else uses it, say "
            "--force"
        )
    others = signals.running + (signals.waiting or 0)
    if others:
        raise BusyEngineError(
            f"{client.url} is busy with {others} request(s) of others; take it out of service "
            "while it is measured, or say --force"
        )


async def signals_of(client: EngineClient) -> EngineSignals:
    """The engine's own view of its load."""
    return (await _read_metrics(client)).signals


async def _read_metrics(client: EngineClient) -> Reading:
    return read(await client.page("/metrics") or b"", "vllm", client.clock())


async def _served(client: EngineClient, model: str) -> dict[str, Any]:
    listed = (await client.json("/v1/models")).get("data")
    entries = [e for e in listed if isinstance(e, dict) and "id" in e] if listed else []
    if not entries:
        raise ConfigError(f"{client.url}/v1/models lists no model; is this an inference engine?")
    for entry in entries:
        if model in ("", entry["id"]):
            return entry
    names = ", ".join(str(entry["id"]) for entry in entries)
    raise ConfigError(f"{client.url} does not serve {model!r}; it serves {names}")


async def _vllm(facts: EngineFacts, client: EngineClient) -> EngineFacts:
    expo = Exposition(await client.page("/metrics") or b"", Problems())
    series = expo.series("vllm:cache_config_info")
    cache = series[0].labels if series else {}
    # Only with VLLM_SERVER_DEV_MODE=1; nothing else tells the scheduler's limits.
    info = await client.json("/server_info?config_format=json")
    config = info.get("vllm_config")
    scheduler = config.get("scheduler_config", {}) if isinstance(config, dict) else {}
    block, caching = cache.get("block_size", ""), cache.get("enable_prefix_caching")
    return replace(
        facts,
        version=str((await client.json("/version")).get("version", "")),
        block_tokens=int(block) if block.isdigit() else None,
        prefix_caching=None if caching is None else caching == "True",
        max_num_seqs=_count(scheduler.get("max_num_seqs")),
        max_num_batched_tokens=_count(scheduler.get("max_num_batched_tokens")),
        schedule_ahead=scheduler.get("async_scheduling"),
    )


def _sglang(facts: EngineFacts, info: dict[str, Any]) -> EngineFacts:
    states = info.get("internal_states") or [{}]
    running = info.get("max_running_requests") or states[0].get(
        "effective_max_running_requests_per_dp"
    )
    overlap, radix = info.get("disable_overlap_schedule"), info.get("disable_radix_cache")
    return replace(
        facts,
        version=str(info.get("version") or ""),
        kv_capacity_tokens=_count(info.get("max_total_num_tokens")) or facts.kv_capacity_tokens,
        block_tokens=_count(info.get("page_size")),
        prefix_caching=None if radix is None else not radix,
        max_num_seqs=_count(running),
        max_num_batched_tokens=_count(info.get("chunked_prefill_size")),
        schedule_ahead=None if overlap is None else not overlap,
        queue_order=info.get("schedule_policy"),
    )


def _count(value: object) -> int | None:
    """A positive whole number, or ``None``: engines write -1 for "no limit"."""
    return value if isinstance(value, int) and value > 0 else None
