"""Several gateway replicas: what knowing only one's own costs, and what sharing brings back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.domain.errors import ConfigError
from simulator.options import ReplayOptions
from simulator.run import build_replay, run_policy
from simulator.summary import summarize
from simulator.synthetic import builtin_trace
from tests.simulator.builders import CERTAIN, fleet_config, make_trace

FLEET = (
    {"gpu": "a100-80", "count": 2},
    {"gpu": "v100-32", "count": 2},
    {"gpu": "t4", "tensor_parallel": 2, "count": 4},
)


@pytest.fixture(scope="module")
def mean_ttft_s() -> dict[str, float]:
    """Of one replica, of four that share nothing, and of four that share; over three seeds."""
    config, trace = fleet_config(FLEET), builtin_trace("azure-conv-like", duration_s=300, seed=1)
    found = {}
    for name, routers, every_s in (("one", 1, 0.0), ("four", 4, 0.0), ("sharing", 4, 0.1)):
        options = ReplayOptions(routers=routers, shared_every_s=every_s)
        runs = [
            summarize(run_policy(trace, config, "motley", replace(options, seed=seed)))
            for seed in range(3)
        ]
        found[name] = sum(run["ttft_s"]["mean"] for run in runs) / len(runs)
    return found


def test_replicas_that_share_nothing_cost_latency(mean_ttft_s: dict[str, float]) -> None:
    assert mean_ttft_s["four"] > 1.05 * mean_ttft_s["one"]


def test_sharing_ten_times_a_second_brings_a_part_of_it_back(
    mean_ttft_s: dict[str, float],
) -> None:
    lost = mean_ttft_s["four"] - mean_ttft_s["one"]
    still_lost = mean_ttft_s["sharing"] - mean_ttft_s["one"]
    assert still_lost < 0.85 * lost


def test_what_is_shared_is_exactly_what_the_others_have() -> None:
    """After an exchange every replica counts the fleet's whole load, as one replica would."""
    trace = make_trace((0.01 * n, 500, 200) for n in range(40))
    options = replace(CERTAIN, routers=4, shared_every_s=0.05)
    replay = build_replay(trace, fleet_config(FLEET), "least-request", options)
    seen: list[list[int]] = []

    def look(now: float) -> None:
        seen.append(
            [
                sum(b.in_flight for b in dispatcher.state.backends)
                for dispatcher in replay.dispatchers
            ]
        )

    share = replay._gateways._share
    replay._gateways._share = lambda _, now: (share(lambda _: None, now), look(now))[1]  # type: ignore[method-assign]
    replay.run()
    assert max(map(max, seen)) > 8
    assert all(len(set(counts)) == 1 for counts in seen)
    for dispatcher in replay.dispatchers:
        assert dispatcher.in_flight == 0


def test_an_interval_is_a_time() -> None:
    with pytest.raises(ConfigError, match="shared_every_s"):
        ReplayOptions(shared_every_s=-1.0)
