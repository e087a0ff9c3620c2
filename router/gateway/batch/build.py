"""The Batch API as the configuration asks for it."""

from __future__ import annotations

from collections.abc import Callable

from router.domain.errors import ConfigError
from router.gateway.batch.runner import Runner
from router.gateway.batch.store import Store
from router.gateway.runtime import Chore, Runtime


def attach_batches(runtime: Runtime, unix_s: Callable[[], float]) -> list[Chore]:
    """Give the gateway the Batch API and its chore, if there is a directory for it.

    Raises:
        ConfigError: the directory cannot be used, or the class does not exist.
    """
    config, section = runtime.config, runtime.config.batch
    if section.directory is None:
        return []
    if section.slo_class not in config.slos:
        known = ", ".join(sorted(config.slos))
        raise ConfigError(f"batch.slo_class: there is no class {section.slo_class!r}: {known}")
    runner = runtime.batches = Runner(
        store=Store(section.directory),
        engine=runtime.engine,
        gate=runtime.gate,
        slo_class=section.slo_class,
        concurrency=section.concurrency,
        unix_s=unix_s,
    )
    runtime.closing = (*runtime.closing, runner.store.close)
    return [Chore("batches", runner.run)]
