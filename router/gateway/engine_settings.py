"""What the relay engine takes from the configuration, at the start and at every reload."""

from __future__ import annotations

from router.config.load import MotleyConfig
from router.config.schema import ContinuationSection
from router.gateway.continuation.rules import ContinuationRules
from router.gateway.identity import Identity
from router.gateway.limits import Limits
from router.gateway.settings import EngineSettings


def engine_settings(config: MotleyConfig) -> EngineSettings:
    """Timeouts, names and headers."""
    times = config.reliability
    identity = Identity(config.upstream)
    return EngineSettings(
        limits=Limits(
            connect_s=times.connect_timeout_s,
            first_byte_s=times.first_byte_timeout_s,
            idle_s=times.idle_timeout_s,
            total_s=times.total_timeout_s,
            retries=times.max_retries,
        ),
        policy_name=config.policy.name,
        aliases=config.aliases,
        adapters=config.adapters,
        slos=config.slos,
        fallbacks=config.fallbacks,
        explain_every_s=config.telemetry.explain_every_s,
        asks_load=config.telemetry.enabled and config.telemetry.orca,
        identity=identity or None,
        max_json_depth=config.server.max_json_depth,
        continuation=_continuation(times.continuation),
    )


def _continuation(section: ContinuationSection) -> ContinuationRules | None:
    if not section.enabled:
        return None
    return ContinuationRules(section.by_default, section.max_per_request, section.max_bytes)
