"""Pools of a Kubernetes cluster, scaled a replica at a time.

Discovery adds and removes the pods; this only scales. A pod that was drained is the one that goes,
because it is annotated with the lowest ``controller.kubernetes.io/pod-deletion-cost`` before the
scale-down. A start is noted on its deployment before it is asked for, so that after a crash it is
awaited instead of asked for twice.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from router.domain.fleet import BackendSpec
from router.gateway.placement.adapter import PlacementError, Survey
from router.gateway.placement.cluster import (
    MANAGED,
    PLACING,
    STARTING,
    Cluster,
    EnginePool,
    pool_name,
)
from solver.stock import Pool


class KubernetesAdapter:
    """Scales deployments.

    Args:
        cluster: the pools.
        stock: cards by pool, as in ``a100-80: 4`` or ``t4@zone-b: 8``.
        ready_timeout_s: for a new pod to be ready.
        dry: say what would be scaled, scale nothing.
        look_s: between looks.
    """

    name = "kubernetes"
    joins = False

    def __init__(
        self,
        cluster: Cluster,
        *,
        stock: Mapping[str, int],
        ready_timeout_s: float,
        dry: bool = False,
        look_s: float = 1.0,
    ) -> None:
        self.dry = dry
        self._cluster = cluster
        self._stock = dict(stock)
        self._ready_timeout_s, self._look_s = ready_timeout_s, look_s
        self._known: dict[str, EnginePool] = {}

    async def survey(self, running: Sequence[BackendSpec]) -> Survey:  # noqa: ARG002
        """Cards as configured; every pool could run more.

        Raises:
            PlacementError: an operator holds the placement, or the cluster cannot be read.
        """
        found = await self._cluster.pools()
        held = [pool.name for pool in found if pool.held]
        if held:
            raise PlacementError(
                f"{', '.join(held)}: an operator took the placement back; 'motley plans --resume' "
                "lets the planner go on"
            )
        self._known = {one.spec.group: one for one in found}
        return Survey(self._pools(), tuple(one.spec for one in found), scalable=True)

    def preview(self, wanted: Mapping[str, int]) -> tuple[str, ...]:
        """Each deployment whose replicas would change."""
        return tuple(
            f"deployment {pool.name}: {pool.replicas} -> {wanted.get(group, 0)} replicas"
            for group, pool in sorted(self._known.items())
            if pool.replicas != wanted.get(group, 0)
        )

    async def begin(self) -> None:
        """Note how many replicas there are, for whoever wants them back.

        A run that was broken off has noted it: to take it back is to go before all of it.
        """
        pools = await self._cluster.pools()
        if any(PLACING in pool.notes for pool in pools):
            return
        for pool in pools:
            await self._cluster.note(pool.name, before=str(pool.replicas), placing="true")

    async def finish(self) -> None:
        """This run is over, or one that was broken off has nothing left to do."""
        for pool in await self._cluster.pools():
            if PLACING in pool.notes or STARTING in pool.notes:
                await self._cluster.note(pool.name, placing=None, starting=None)

    def can_start(self, group: str, running: Sequence[BackendSpec]) -> bool:
        """Whether there is such a deployment and cards are free in its pool."""
        known = self._known.get(group)
        if known is None:
            return False
        place = (known.spec.gpu, known.spec.zone)
        taken = sum(s.tensor_parallel for s in running if (s.gpu, s.zone) == place)
        return taken + known.spec.tensor_parallel <= self._stock.get(pool_name(known.spec), 0)

    async def start(self, group: str, running: Sequence[BackendSpec]) -> BackendSpec | None:  # noqa: ARG002
        """Scale the deployment up by one and wait until the new pod is ready.

        A start that a crash broke off is awaited, not asked for again.

        Raises:
            PlacementError: the pod does not become ready in time.
        """
        before = await self._read(group)
        under_way = before.noted(STARTING)
        wanted = before.replicas + 1
        if under_way is not None and before.ready < under_way <= wanted:
            wanted = under_way
        await self._cluster.note(before.name, starting=str(wanted))
        if before.replicas < wanted:
            await self._cluster.scale(before.name, wanted)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._ready_timeout_s
        while (await self._read(group)).ready <= before.ready:
            if loop.time() > deadline:
                await self._cluster.scale(before.name, max(0, wanted - 1))
                await self._cluster.note(before.name, starting=None)
                raise PlacementError(
                    f"deployment {before.name}: no new pod is ready within "
                    f"{self._ready_timeout_s:g} s; scaled back"
                )
            await asyncio.sleep(self._look_s)
        await self._cluster.note(before.name, starting=None)
        return None

    async def stop(self, spec: BackendSpec) -> None:
        """Mark the drained pod as the first to go, and scale the deployment down by one.

        Raises:
            PlacementError: the cluster has no other ready pod of its model.
        """
        pools = await self._cluster.pools()
        now = _of_group(pools, spec.group)
        if sum(pool.ready for pool in pools if pool.spec.model == spec.model) <= 1:
            raise PlacementError(
                f"deployment {now.name} has the only ready pod of {spec.model}: it stays"
            )
        if await self._cluster.first_to_go(urlsplit(spec.url or "").hostname) is None:
            return  # it is gone already
        await self._cluster.scale(now.name, max(0, now.replicas - 1))

    async def close(self) -> None:
        """Drop connections."""
        await self._cluster.close()

    def _pools(self) -> tuple[Pool, ...]:
        """One pool a line of ``stock``; engines span as many cards as the largest does today."""
        widest: Counter[str] = Counter()
        for one in self._known.values():
            name = pool_name(one.spec)
            widest[name] = max(widest[name], one.spec.tensor_parallel)
        pools = []
        for name, cards in self._stock.items():
            gpu, _, zone = name.partition("@")
            size = max(1, widest[name])
            pools.append(Pool(gpu, zone, {size: cards // size}))
        return tuple(pools)

    async def _read(self, group: str) -> EnginePool:
        return _of_group(await self._cluster.pools(), group)


def _of_group(pools: Sequence[EnginePool], group: str) -> EnginePool:
    for one in pools:
        if one.spec.group == group:
            return one
    raise PlacementError(f"no deployment with {MANAGED} serves {group}")
