"""The flags an operator passed to the engine, laid over its defaults.

A backend's ``engine_args`` carry the engines' own names, dashes or underscores, so that a launch
command can be copied: what changes scheduling or memory is understood, anything else is refused
by name rather than passed over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from router.domain.errors import ConfigError
from router.domain.fleet import BackendSpec, EngineArg


@dataclass(frozen=True, slots=True)
class _Arg:
    """Where a flag goes, and which values it may have."""

    setting: str
    wanted: str
    fits: Callable[[EngineArg], bool]
    value: Callable[[Any], Any] = lambda given: given


def _whole(given: EngineArg) -> bool:
    return isinstance(given, int) and not isinstance(given, bool) and given >= 1


def _number(given: EngineArg, least: float, most: float) -> bool:
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    return is_number and least < float(given) <= most


def _count(setting: str) -> _Arg:
    return _Arg(setting, "a whole number of at least 1", _whole)


def _share(setting: str) -> _Arg:
    return _Arg(setting, "a number above 0, at most 1", lambda given: _number(given, 0.0, 1.0))


def _switch(setting: str, value: Callable[[bool], Any] = bool) -> _Arg:
    return _Arg(setting, "true or false", lambda given: isinstance(given, bool), value)


KNOWN: Mapping[str, Mapping[str, _Arg]] = {
    "vllm": {
        "max_num_seqs": _count("max_num_seqs"),
        "max_num_batched_tokens": _count("max_num_batched_tokens"),
        "block_size": _count("block_tokens"),
        "num_gpu_blocks_override": _count("kv_blocks"),
        "gpu_memory_utilization": _share("gpu_memory_utilization"),
        "enable_chunked_prefill": _switch("chunked_prefill"),
        "enable_prefix_caching": _switch("prefix_caching"),
        "async_scheduling": _switch("schedule_ahead", int),
        "max_num_queued_reqs": _count("max_num_queued_reqs"),
        "watermark": _Arg(
            "watermark", "a number from 0 to below 1", lambda given: _number(given, -1e-9, 0.999)
        ),
    },
    "sglang": {
        "max_running_requests": _count("max_num_seqs"),
        "chunked_prefill_size": _count("max_num_batched_tokens"),
        "max_prefill_tokens": _count("max_prefill_tokens"),
        "page_size": _count("block_tokens"),
        "max_total_tokens": _count("kv_tokens"),
        "mem_fraction_static": _share("gpu_memory_utilization"),
        "disable_radix_cache": _switch("prefix_caching", lambda given: not given),
        "disable_overlap_schedule": _switch("schedule_ahead", lambda given: int(not given)),
        "max_queued_requests": _count("max_num_queued_reqs"),
        "schedule_policy": _Arg("queue_order", "fcfs or lpm", lambda g: g in ("fcfs", "lpm")),
        "schedule_conservativeness": _Arg(
            "schedule_conservativeness",
            "a number above 0",
            lambda given: _number(given, 0.0, math.inf),
        ),
    },
    "llamacpp": {
        "parallel": _count("max_num_seqs"),
        "batch_size": _count("max_num_batched_tokens"),
        "ctx_size": _Arg(  # 0, its own default, stands for the model's
            "kv_tokens",
            "a whole number of at least 0",
            lambda given: _whole(given) or (given == 0 and type(given) is int),
            lambda given: given or None,
        ),
        "cache_prompt": _switch("prefix_caching"),
    },
}
"""By engine: its flags, and the attribute of ``EngineDefaults`` that each sets."""


def settings_of(spec: BackendSpec) -> dict[str, Any]:
    """What the flags of ``spec`` set: values by attribute of ``EngineDefaults``.

    Raises:
        ConfigError: a flag that is not known here, or a value that it cannot have.
    """
    known = KNOWN[spec.engine]
    settings: dict[str, Any] = {}
    for flag, given in spec.engine_args.items():
        name = flag.lstrip("-").replace("-", "_")
        arg = known.get(name)
        if arg is None:
            raise ConfigError(_unknown(spec, flag, name))
        if not arg.fits(given):
            raise ConfigError(
                f"backend {spec.name!r}: engine_args: {flag} must be {arg.wanted}, not {given!r}"
            )
        settings[arg.setting] = arg.value(given)
    return settings


def _unknown(spec: BackendSpec, flag: str, name: str) -> str:
    known = KNOWN[spec.engine]
    near = get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return (
        f"backend {spec.name!r}: engine_args: {flag!r} is no flag of {spec.engine} that changes "
        f"scheduling or memory.{hint} Known: {', '.join(sorted(known))}."
    )
