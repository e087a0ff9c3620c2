"""What the command line of ``motley serve`` says on top of the file, and what each worker gets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from router.config.load import MotleyConfig
from router.config.schema import LearnedSection, RecordSection
from router.domain.errors import UnknownNameError
from router.policies.registry import POLICIES

if TYPE_CHECKING:
    from router.gateway.processes import Worker


def with_own_files(config: MotleyConfig, worker: Worker | None) -> MotleyConfig:
    """Each worker writes files of its own, and has an admin port of its own."""
    from router.gateway.bookkeeping import WORKER_FOLDER
    from router.gateway.processes import own_file

    if worker is None:
        return config
    given: dict[str, Any] = {}
    if config.server.decision_log:
        given["decision_log"] = own_file(config.server.decision_log, worker)
    config = replace(config, server=config.server.model_copy(update=given))
    if config.admin.port:
        door = config.admin.model_copy(update={"port": config.admin.port + worker.index})
        config = replace(config, admin=door)
    record = config.telemetry.record
    if record is None:
        return config
    folder = f"{record.directory}/{WORKER_FOLDER}{worker.index}"
    own = record.model_copy(update={"directory": folder})
    return replace(config, telemetry=config.telemetry.model_copy(update={"record": own}))


def with_flags(
    config: MotleyConfig,
    *,
    host: str | None = None,
    port: int | None = None,
    policy: str | None = None,
    log: Path | None = None,
    workers: int | None = None,
) -> MotleyConfig:
    """The configuration with what the command line says instead.

    Raises:
        UnknownNameError: there is no such policy.
    """
    door: dict[str, Any] = {"host": host, "port": port, "decision_log": log and str(log)}
    door["workers"] = workers
    given = {name: value for name, value in door.items() if value is not None}
    config = replace(config, server=config.server.model_copy(update=given))
    if policy is None or policy == config.policy.name:
        return config
    if policy not in POLICIES:
        raise UnknownNameError("policy", policy, POLICIES)
    # The file's parameters belong to the file's policy.
    chosen = config.policy.model_copy(update={"name": policy, "params": {}})
    return replace(config, policy=chosen)


def with_books(
    config: MotleyConfig,
    *,
    record: Path | None = None,
    access_log: bool = False,
    learned: Path | None = None,
) -> MotleyConfig:
    """The configuration with the record, the log and the memory that the command line asks for."""
    if access_log:
        server = config.server.model_copy(update={"access_log": True})
        config = replace(config, server=server)
    telemetry: dict[str, Any] = {}
    if record is not None:
        kept = config.telemetry.record or RecordSection(directory="")
        telemetry["record"] = kept.model_copy(update={"directory": str(record)})
    if learned is not None:
        known = config.telemetry.learned or LearnedSection(file="-")
        telemetry["learned"] = known.model_copy(update={"file": str(learned)})
    return replace(config, telemetry=config.telemetry.model_copy(update=telemetry))
