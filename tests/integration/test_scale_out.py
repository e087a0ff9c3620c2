"""The simulator's k-router mode against k real gateways over the same emulated fleet."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.gateway.scale_out import Loss, Study, measured, predicted
from tests.fakes.redis_server import RedisServer

ALONE_WITHIN, SHARING_WITHIN = 0.2, 0.1
"""Of the simulator's ratio. Eight gateways, eight engines and their clients share two cores here,
and what waits for a core is late."""


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> tuple[Loss, Loss]:
    """Live, through a real Redis, and simulated."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as redis:
        study = Study(routers=8, duration_s=60.0, redis=redis.url)
        return asyncio.run(measured(study)), predicted(study)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_routers_that_know_only_their_own_lose_what_the_simulator_predicts(
    losses: tuple[Loss, Loss],
) -> None:
    live, simulated = losses
    assert simulated.alone > 1.1
    assert live.alone > 1.1
    assert live.alone == pytest.approx(simulated.alone, abs=ALONE_WITHIN)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_what_they_share_brings_it_back_as_predicted(losses: tuple[Loss, Loss]) -> None:
    live, simulated = losses
    assert live.sharing == pytest.approx(simulated.sharing, abs=SHARING_WITHIN)
    assert live.sharing - 1.0 < 0.5 * (live.alone - 1.0)
