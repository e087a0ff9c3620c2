"""Which adapter the file asks for, and the gateway's fleet as the loop sees it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from router.config.load import MotleyConfig
from router.domain.errors import ConfigError
from router.domain.fleet import BackendSpec
from router.fleet_state.backend import BackendState
from router.gateway.placement.adapter import Adapter
from router.gateway.placement.carry_out import Members
from router.gateway.placement.dry_run import DryRun
from router.gateway.runtime import Runtime


class RuntimeMembers:
    """Implements ``Members`` over a running gateway."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def backends(self) -> Sequence[BackendState]:
        """Everybody in it."""
        return list(self._runtime.engine.dispatcher.state.backends)

    def drain(self, name: str) -> None:
        """Send nothing new there."""
        engine = self._runtime.engine
        engine.dispatcher.drain(name, engine.now())

    def join(self, spec: BackendSpec) -> None:
        """A ready engine joins."""
        self._runtime.add_backend(spec)

    def leave(self, name: str) -> None:
        """An engine that serves nobody leaves."""
        self._runtime.remove_backend(name)


def check_placement(config: MotleyConfig) -> None:
    """Refuse at start what could not work later.

    Raises:
        ConfigError: the section lacks what its adapter needs.
    """
    section = config.planner.placement
    if section.adapter == "vllm":
        from router.gateway.placement.vllm import check_slots  # noqa: PLC0415 - imports httpx

        check_slots(config.fleet.backends)
    if section.adapter != "kubernetes":
        return
    if not section.stock:
        raise ConfigError(
            "planner.placement.stock: list the cluster's cards, as in {a100-80: 4, t4: 8}; "
            "replicas are placed within them"
        )
    if find_spec("kubernetes_asyncio") is None:
        raise ConfigError(
            "planner.placement.adapter: kubernetes needs an extra: "
            "pip install 'motley-router[kubernetes]'"
        )


async def adapter_of(config: MotleyConfig, members: Members) -> Adapter:
    """The adapter of ``planner.placement``; backends that are asleep leave the fleet.

    Raises:
        ConfigError: no cluster is configured.
        PlacementError: an engine that does not answer.
    """
    section = config.planner.placement
    if section.adapter == "dry-run":
        return DryRun(Path(section.path), config.hardware)
    if section.adapter == "vllm":
        from router.gateway.placement.vllm import VllmAdapter  # noqa: PLC0415 - imports httpx

        engines = VllmAdapter(config.fleet.backends, ready_timeout_s=section.ready_timeout_s)
        for spec in await engines.asleep():
            members.leave(spec.name)
        return engines
    return await _cluster(config)


async def _cluster(config: MotleyConfig) -> Adapter:
    from router.gateway.placement.cluster import Cluster, connect  # noqa: PLC0415 - an extra
    from router.gateway.placement.kubernetes import KubernetesAdapter  # noqa: PLC0415

    section = config.planner.placement
    return KubernetesAdapter(
        Cluster(await connect(), section.namespace, config.hardware, section.label_selector),
        stock=section.stock,
        ready_timeout_s=section.ready_timeout_s,
        dry=section.dry_run,
    )
