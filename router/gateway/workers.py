"""The fleet over REST: what the gateway knows of each backend, joining and leaving.

Field names follow what users of other routers' ``/workers`` know.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any
from urllib.parse import urlsplit

from router.config.fleet import build_fleet
from router.config.schema import BackendEntry
from router.domain.fleet import BackendSpec
from router.fleet_state.backend import BackendState
from router.gateway.upstream import parse_address
from router.perf.hardware import Hardware


def described(backend: BackendState) -> dict[str, Any]:
    """One backend as JSON."""
    spec, signals = backend.spec, backend.signals
    prefill, decode = backend.correction
    return {
        "name": spec.name,
        "url": _without_credentials(spec.url or ""),
        "model_id": spec.model,
        "engine": spec.engine,
        "gpu": spec.gpu,
        "tensor_parallel": spec.tensor_parallel,
        "group": spec.group,
        "labels": dict(spec.labels),
        "is_healthy": backend.usable,
        "draining": backend.draining,
        "breaker": backend.breaker.state,
        "load": backend.in_flight,
        "prefilling": backend.prefilling,
        "decoding": backend.decoding,
        "context_tokens": round(backend.context_tokens),
        "kv_capacity_tokens": backend.kv_capacity_tokens,
        "max_context_tokens": backend.max_context_tokens,
        "price": backend.price,
        "correction": {"prefill": prefill, "decode": decode},
        "engine_running": signals.running if signals else None,
        "engine_waiting": signals.waiting if signals else None,
        "engine_kv_usage": signals.kv_usage if signals else None,
    }


def new_spec(entry: BackendEntry, taken: set[str], hardware: Hardware) -> BackendSpec:
    """A backend from one entry of ``backends``, named as the file would name it.

    Args:
        entry: ``count`` must be 1.
        hardware: what the configuration knows of models and cards.
        taken: names that are in use; an unnamed backend gets the first free ``<gpu>-<n>``.

    Raises:
        ConfigError: no usable URL, unknown GPU or model, or a model that does not fit.
    """
    spec = build_fleet([entry], hardware).backends[0]
    parse_address(spec.name, spec.url)
    if entry.name is None:
        names = (f"{entry.gpu}-{n}" for n in count())
        spec = replace(spec, name=next(name for name in names if name not in taken))
    return spec


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
