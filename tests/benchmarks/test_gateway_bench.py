"""The gateways' table decides by what differs between them, not by when each was measured."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks.gateway import bench_instructions as instructions
from benchmarks.gateway import bench_overhead as bench

SLOWER = [1.0, 3.0, 1.5, 2.0, 1.2]
"""A machine that others use as well, in five rounds."""


def test_noise_that_both_of_a_pair_have_is_not_in_their_ratio():
    theirs = [50.0 * noise for noise in SLOWER]
    ours = [100.0 * noise for noise in SLOWER]
    found = bench.ratio(ours, theirs, bench.middle)
    assert (found.value, found.low, found.high) == (2.0, 2.0, 2.0)


def test_noise_that_one_of_a_pair_has_is_told():
    ours = [100.0 * noise for noise in SLOWER]
    found = bench.ratio(ours, [100.0] * 5, bench.middle)
    assert found.low < found.value == 1.5 < found.high


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """95 % of intervals; of a median of few rounds a bootstrap's hold it a little less often."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(100):
        ours = (1.2 * rng.normal(100.0, 5.0, 9)).tolist()
        theirs = rng.normal(100.0, 5.0, 9).tolist()
        found = bench.ratio(ours, theirs, bench.middle)
        held += found.low <= 1.2 <= found.high
    assert 85 <= held <= 100


def test_a_tail_is_that_of_all_rounds_together():
    rounds = [[1.0] * 99 + [50.0], [1.0] * 99 + [50.0], [1.0] * 100]
    assert bench.percentile_of(99)(rounds) == 1.0
    assert bench.percentile_of(99.9)(rounds) == 50.0


@pytest.fixture
def engines() -> Iterator[bench.Engines]:
    with bench.engines(1) as running:
        yield running


def test_a_window_counts_what_came_while_it_was_open(engines: bench.Engines):
    window = asyncio.run(bench.windows.requests(engines.port, 1024, seconds=0.2, cpu=engines.cpu_s))
    assert window.errors == 0
    assert window.done > 50
    assert 0 < window.cpu_s < 0.3

    streamed = asyncio.run(
        bench.windows.streams(
            engines.port, count=4, tokens=bench.TOKENS, begin_s=0.3, seconds=0.5, cpu=engines.cpu_s
        )
    )
    assert streamed.errors == 0
    assert streamed.done == pytest.approx(4 * 0.5 * bench.RATE_PER_S, rel=0.4)


def test_a_stream_that_lacks_an_event_is_an_error(engines: bench.Engines):
    window = asyncio.run(
        bench.windows.streams(
            engines.port,
            count=2,
            tokens=bench.TOKENS + 1,
            begin_s=0.3,
            seconds=0.1,
            cpu=engines.cpu_s,
        )
    )
    assert window.errors == 2


def test_who_is_not_measured_does_nothing(engines: bench.Engines):
    engines.stop()
    try:
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(_ask(engines.port), 0.3))
    finally:
        engines.go_on()
    window = asyncio.run(_ask(engines.port))
    assert (len(window.latencies_s), window.errors) == (10, 0)


async def _ask(port: int) -> bench.windows.Window:
    return await bench.windows.paced(port, 1024, per_s=100.0, seconds=0.1)


def test_instructions_are_counted_by_part_and_request():
    found = [
        ("router/perf/length.py", "learn", 500, 20),
        ("router/perf/estimate.py", "ttft_s", 300, 10),
        ("/usr/lib/python3.11/bisect.py", "insort", 200, 10),
    ]
    told = [line.split() for line in instructions.table(found, 10, functions=1).splitlines()]
    assert told[0][-1] == "100"
    assert told[1:4] == [
        ["length", "forecasts", "50", "50.0%"],
        ["books", "and", "predictions", "30", "30.0%"],
        ["libraries", "20", "20.0%"],
    ]
    assert told[-1] == ["learn", "50", "2.00", "router/perf/length.py"]
