"""The newest placement taken back, with the planner's hands off until it is told to go on.

Works without the gateway: on the notes that placement left on the deployments.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from router.gateway.placement.adapter import PlacementError
from router.gateway.placement.cluster import BEFORE, Cluster, EnginePool


async def difference(cluster: Cluster) -> dict[str, tuple[int, int]]:
    """Replicas now and before the newest placement, of each deployment where they differ.

    Raises:
        PlacementError: no placement has been made here.
    """
    pools = await cluster.pools()
    if not any(pool.noted(BEFORE) is not None for pool in pools):
        raise PlacementError(
            f"no placement has been made in namespace {cluster.namespace!r}: nothing to take back"
        )
    return {
        pool.name: (pool.replicas, before)
        for pool in pools
        if (before := pool.noted(BEFORE)) is not None and before != pool.replicas
    }


async def undo(
    cluster: Cluster,
    said: Callable[[str], None],
    *,
    timeout_s: float = 900.0,
    look_s: float = 1.0,
) -> None:
    """Scale every pool to what it had before; no model loses its last ready pod on the way.

    Pods that go drain by their own preStop hook.

    Raises:
        PlacementError: a pod that was to come did not get ready in time; what was done stays.
    """
    wanted = {name: before for name, (_, before) in (await difference(cluster)).items()}
    for pool in await cluster.pools():
        await cluster.note(pool.name, hold="hold")
    await _up(cluster, wanted, said)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while many := _too_many(pools := await cluster.pools(), wanted):
        spare = next((pool for pool in many if _ready(pools, pool.spec.model) > 1), None)
        if spare is not None:
            await cluster.scale(spare.name, spare.replicas - 1)
            said(f"{spare.name}: {spare.replicas} -> {spare.replicas - 1}")
            await _until_gone(cluster, spare, deadline, look_s)
        elif loop.time() > deadline:
            raise PlacementError(
                f"{many[0].name} has the only ready pod of {many[0].spec.model}: it stays at "
                f"{many[0].replicas} replicas"
            )
        else:
            await asyncio.sleep(look_s)


async def resume(cluster: Cluster) -> list[str]:
    """Let the planner go on; the deployments it had its hands off."""
    held = [pool.name for pool in await cluster.pools() if pool.held]
    for name in held:
        await cluster.note(name, hold=None)
    return held


async def _up(cluster: Cluster, wanted: Mapping[str, int], said: Callable[[str], None]) -> None:
    """Ask for what is missing; it starts as soon as there are cards."""
    for pool in await cluster.pools():
        if pool.replicas < wanted.get(pool.name, pool.replicas):
            await cluster.scale(pool.name, wanted[pool.name])
            said(f"{pool.name}: {pool.replicas} -> {wanted[pool.name]}")


async def _until_gone(cluster: Cluster, pool: EnginePool, deadline: float, look_s: float) -> None:
    """Count no pod as ready that was just told to leave."""
    loop = asyncio.get_running_loop()
    while loop.time() < deadline:
        now = next(one for one in await cluster.pools() if one.name == pool.name)
        if now.ready <= max(0, pool.replicas - 1):
            return
        await asyncio.sleep(look_s)


def _too_many(pools: Sequence[EnginePool], wanted: Mapping[str, int]) -> list[EnginePool]:
    return [pool for pool in pools if pool.replicas > wanted.get(pool.name, pool.replicas)]


def _ready(pools: Sequence[EnginePool], model: str) -> int:
    return sum(pool.ready for pool in pools if pool.spec.model == model)
