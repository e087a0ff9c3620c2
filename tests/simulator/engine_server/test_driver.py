"""The replica on the wall clock. One iteration takes 10 ms here, so token ``i`` of a short prompt
comes ``10 * (i + 1)`` ms after the request."""

import asyncio

import pytest

from simulator.engine_server.clock import EngineClock
from simulator.engine_server.driver import Driver
from simulator.engine_server.stats import EngineStats
from simulator.engine_server.vllm_metrics import VllmMetrics
from simulator.replica.build import make_replica
from simulator.replica.config import ReplicaConfig
from simulator.replica.job import Job
from tests.simulator.engine_server.still_loop import ConstantSteps, StillLoop, settle

STEP_S = 0.01
EPSILON_S = 1e-9  # the loop's time is a sum of floats


class Rig:
    def __init__(self, speed=1.0, early_s=0.0, **config):
        self.loop = StillLoop(early_s)
        replica = make_replica(
            ReplicaConfig(**config), ConstantSteps(STEP_S), exact=True, token_events=True
        )
        clock = EngineClock(self.loop.time, speed)
        self.driver = Driver(replica, clock, self.loop, EngineStats(VllmMetrics.bounds))
        self._jobs = 0

    def submit(self, tokens=5, *, stream=True):
        self._jobs += 1
        return self.driver.submit(Job(str(self._jobs), 8, tokens), "stop", stream=stream)


async def test_tokens_come_when_the_model_says():
    rig = Rig()
    live = rig.submit(tokens=3)
    seen = []
    for _ in range(3):
        rig.loop.move(STEP_S - 1e-6)
        seen.append(live.tokens)
        rig.loop.move(1e-6 + EPSILON_S)
        seen.append(live.tokens)
    assert seen == [0, 1, 1, 2, 2, 3]
    assert live.ending == "finished"
    assert rig.driver.in_engine == 0
    assert rig.loop.next_s is None  # an idle engine costs nothing


async def test_a_handler_hears_of_every_token_and_of_the_end():
    rig = Rig()
    live = rig.submit(tokens=4)
    heard = []

    async def listen():
        while live.ending is None:
            heard.append(await live.more(heard[-1] if heard else 0))

    await rig.loop.run(listen())
    assert heard == [1, 2, 3, 4]


async def test_who_does_not_stream_is_woken_once():
    rig = Rig()
    live = rig.submit(tokens=4, stream=False)
    waiting = asyncio.ensure_future(live.end())
    await settle()
    rig.loop.move(3.5 * STEP_S)
    await settle()
    assert not waiting.done()
    assert live.tokens == 3
    assert await rig.loop.run(waiting) == "finished"


async def test_a_speed_of_ten_takes_a_tenth_of_the_time_and_reports_emulated_seconds():
    rig = Rig(speed=10)
    live = rig.submit(tokens=5)
    rig.loop.move(0.5 * STEP_S + EPSILON_S)
    assert live.ending == "finished"
    traffic = rig.driver.stats.traffic[True]
    assert traffic.ttft_s.total == pytest.approx(STEP_S)
    assert traffic.e2e_s.total == pytest.approx(5 * STEP_S)
    assert rig.driver.stats.itl_s.total == pytest.approx(4 * STEP_S)


async def test_a_late_loop_catches_up_without_drift():
    rig = Rig()
    live = rig.submit(tokens=100)
    rig.loop._now += 50 * STEP_S  # the process was busy elsewhere
    rig.loop.move(EPSILON_S)
    assert live.tokens == 50
    rig.loop.move(50 * STEP_S)
    assert live.ending == "finished"
    assert rig.driver.stats.traffic[True].e2e_s.total == pytest.approx(100 * STEP_S)


async def test_a_timer_that_fires_early_does_not_spin():
    rig = Rig(early_s=0.0005)
    live = rig.submit(tokens=20)
    rig.loop.move(20 * STEP_S)
    assert live.ending == "finished"
    assert rig.loop.fired == 20


async def test_who_leaves_is_out_of_the_engine_at_once():
    rig = Rig()
    stays, leaves = rig.submit(tokens=100), rig.submit(tokens=100)
    rig.loop.move(5 * STEP_S)
    rig.driver.abort(leaves)
    rig.driver.abort(leaves)
    assert leaves.ending == "aborted"
    assert rig.driver.in_engine == 1
    rig.loop.move(STEP_S)  # the iteration in progress ends
    assert rig.driver.signals().running == 1
    assert rig.driver.stats.aborted == 1
    rig.loop.move(200 * STEP_S)
    assert stays.ending == "finished"


async def test_a_full_queue_refuses():
    rig = Rig(max_num_seqs=1, max_num_queued_reqs=1)
    rig.submit(tokens=50)
    rig.loop.move(STEP_S)
    assert rig.submit() is not None
    assert rig.submit() is None
    assert rig.driver.stats.rejected == 1


async def test_a_hung_engine_keeps_everything_and_goes_on_where_it_was():
    rig = Rig()
    live = rig.submit(tokens=10)
    rig.loop.move(3.5 * STEP_S)
    rig.driver.hang()
    rig.loop.move(1000.0)
    assert live.tokens == 3
    assert rig.driver.signals().running == 1
    rig.driver.resume()
    rig.loop.move(0.5 * STEP_S + EPSILON_S)
    assert live.tokens == 4
    rig.loop.move(6 * STEP_S)
    assert live.ending == "finished"


async def test_a_slowed_engine_takes_so_many_times_as_long_from_its_next_iteration_on():
    rig = Rig()
    live = rig.submit(tokens=10)
    rig.loop.move(2.5 * STEP_S)
    rig.driver.slow_down(3.0)
    rig.loop.move(0.5 * STEP_S + EPSILON_S)
    assert live.tokens == 3
    rig.loop.move(2.9 * STEP_S)
    assert live.tokens == 3
    rig.loop.move(0.1 * STEP_S + EPSILON_S)
    assert live.tokens == 4


async def test_a_crash_loses_everything_and_says_so():
    rig = Rig()
    lives = [rig.submit(tokens=10) for _ in range(3)]
    rig.loop.move(STEP_S)
    rig.driver.die()
    assert {live.ending for live in lives} == {"died"}
    assert rig.driver.in_engine == 0
    assert rig.submit() is not None


async def test_what_was_counted():
    rig = Rig()
    rig.submit(tokens=4, stream=True)
    rig.submit(tokens=2, stream=False)
    rig.loop.move(1.0)
    stats = rig.driver.stats
    assert stats.generation_tokens == 6  # I9: tokens out = tokens asked
    assert stats.prompt_tokens == stats.computed_tokens == 16
    assert stats.finished == {"stop": 2, "length": 0}
    assert [stats.traffic[s].requests for s in (True, False)] == [1, 1]
