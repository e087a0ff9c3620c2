"""The Batch API as the configuration asks for it."""

from __future__ import annotations

from collections.abc import Callable

from router.config.load import MotleyConfig
from router.domain.errors import ConfigError
from router.gateway.batch.quota import Quota
from router.gateway.batch.runner import Runner
from router.gateway.batch.store import Store
from router.gateway.runtime import Chore, Runtime


def check_class(config: MotleyConfig) -> None:
    """See whether the class of batches is one.

    Raises:
        ConfigError: it is none.
    """
    wanted = config.batch.slo_class
    if wanted not in config.slos:
        known = ", ".join(sorted(config.slos))
        raise ConfigError(f"batch.slo_class: there is no class {wanted!r}: {known}")


def attach_batches(runtime: Runtime, unix_s: Callable[[], float]) -> list[Chore]:
    """Give the gateway the Batch API and its chore, if there is a directory for it.

    Raises:
        ConfigError: the directory cannot be used, or the class does not exist.
    """
    config, section = runtime.config, runtime.config.batch
    if section.directory is None:
        return []
    check_class(config)
    runner = runtime.batches = Runner(
        store=Store(section.directory),
        engine=runtime.engine,
        gate=runtime.gate,
        quota=Quota(
            section.max_files_per_key,
            int(section.max_gib_per_key * 1024**3),
            section.max_open_per_key,
        ),
        slo_class=section.slo_class,
        concurrency=section.concurrency,
        unix_s=unix_s,
    )
    runtime.closing = (*runtime.closing, runner.store.close)
    return [Chore("batches", runner.run)]
