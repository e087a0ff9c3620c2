"""Queueing theory: where a formula exists, the simulator must find it.

The engine is real; only its iteration time is made simple (``builders.PlainModel``), so that it
is a textbook server. Lengths are exponential in steps of one token, a thousandth of the mean.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from simulator.results import RunResult, latencies
from simulator.run import run_policy
from simulator.traces.columns import Trace
from tests.simulator.builders import CERTAIN, PlainModel, fleet_config, make_trace, plain_replicas

MEAN_TOKENS = 1000
SERVICE_S = 1.0
COUNT = 12_000


def poisson_trace(rate: float, lengths: str, seed: int = 4) -> Trace:
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1.0 / rate, COUNT)).tolist()
    if lengths == "exponential":
        outputs = np.maximum(1, rng.exponential(MEAN_TOKENS, COUNT).round()).astype(int).tolist()
    else:
        outputs = [MEAN_TOKENS] * COUNT
    return make_trace((t, 1, o) for t, o in zip(arrivals, outputs, strict=True))


def replay(trace: Trace, model: PlainModel, max_num_seqs: int) -> RunResult:
    return run_policy(
        trace,
        fleet_config([{"gpu": "a100-80"}]),
        "round-robin",
        CERTAIN,
        truth_of=lambda spec: model,
        replica_of=plain_replicas(max_num_seqs),
    )


def mean_sojourn_s(result: RunResult) -> float:
    return float(latencies(result).e2e_s.mean())


def server() -> PlainModel:
    """Every iteration takes the same time, however many sequences are in it."""
    return PlainModel(step_s=SERVICE_S / MEAN_TOKENS)


@pytest.mark.parametrize("rho", [0.3, 0.6, 0.8])
def test_m_m_1_sojourn_is_one_over_mu_minus_lambda(rho: float) -> None:
    result = replay(poisson_trace(rho / SERVICE_S, "exponential"), server(), 1)

    # Variance of the mean of N successive waits (Whitt 1989), in units of the service time.
    variance = rho * (2 + 5 * rho - 4 * rho**2 + rho**3) / (1 - rho) ** 4 / COUNT
    expected = SERVICE_S / (1 - rho)
    assert mean_sojourn_s(result) == pytest.approx(expected, abs=2.5 * math.sqrt(variance))


def test_every_wait_of_a_single_server_follows_lindley() -> None:
    """W[n+1] = max(0, W[n] + S[n] - A[n]), request by request (Lindley 1952).

    An arrival waits for the end of the running iteration: up to one step of a thousandth.
    """
    trace = poisson_trace(0.8, "exponential")
    result = replay(trace, server(), 1)

    free_s, expected = 0.0, []
    for arrival, tokens in zip(trace.arrival_s, trace.output_tokens, strict=True):
        free_s = max(free_s, arrival) + tokens * SERVICE_S / MEAN_TOKENS
        expected.append(free_s - arrival)
    assert latencies(result).e2e_s.tolist() == pytest.approx(expected, abs=1e-6)


def test_m_d_1_waits_half_as_long_as_m_m_1() -> None:
    """Pollaczek and Khinchine: W = rho S / (2 (1 - rho)) without variance of service."""
    rho = 0.8
    result = replay(poisson_trace(rho / SERVICE_S, "constant"), server(), 1)

    waiting_s = mean_sojourn_s(result) - SERVICE_S
    assert waiting_s == pytest.approx(rho * SERVICE_S / (2 * (1 - rho)), rel=0.08)


def test_m_m_c_waits_as_erlang_says() -> None:
    """c sequences at constant iteration time are c servers with one queue."""
    servers, rho = 4, 0.8
    offered = servers * rho
    result = replay(poisson_trace(offered / SERVICE_S, "exponential"), server(), servers)

    idle = sum(offered**k / math.factorial(k) for k in range(servers))
    last = offered**servers / math.factorial(servers) / (1 - rho)
    erlang_c = last / (idle + last)
    expected = SERVICE_S + erlang_c * SERVICE_S / (servers * (1 - rho))
    assert mean_sojourn_s(result) == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize("lengths", ["exponential", "constant"])
def test_processor_sharing_does_not_care_about_the_distribution(lengths: str) -> None:
    """M/G/1-PS: E[T] = E[S] / (1 - rho) for any service distribution with this mean."""
    rho = 0.7
    sharing = PlainModel(seq_s=SERVICE_S / MEAN_TOKENS)
    result = replay(poisson_trace(rho / SERVICE_S, lengths), sharing, 4096)

    assert mean_sojourn_s(result) == pytest.approx(SERVICE_S / (1 - rho), rel=0.08)


def test_processor_sharing_slows_everybody_alike() -> None:
    """Under PS the mean slowdown is the same for short and for long requests."""
    rho = 0.6
    sharing = PlainModel(seq_s=SERVICE_S / MEAN_TOKENS)
    result = replay(poisson_trace(rho / SERVICE_S, "exponential"), sharing, 4096)

    _, tokens = result.trace.lengths()
    slowdown = latencies(result).e2e_s / (tokens * SERVICE_S / MEAN_TOKENS)
    middle = float(np.median(tokens))
    for part in (tokens <= middle, tokens > middle):
        assert slowdown[part & (tokens > 50)].mean() == pytest.approx(1 / (1 - rho), rel=0.12)


def test_little_s_law_holds_between_the_samples_and_the_records() -> None:
    """L, seen by sampling the engine, is lambda times W, told by the requests."""
    result = replay(poisson_trace(0.7, "exponential"), server(), 1)

    in_system = np.array(result.timeline.running) + np.array(result.timeline.waiting)
    rate = len(result.trace) / result.trace.span_s
    assert in_system.mean() == pytest.approx(rate * mean_sojourn_s(result), rel=0.15)


def test_an_idle_server_serves_in_exactly_the_service_time() -> None:
    trace = make_trace([(0.0, 1, 1000), (100.0, 1, 10), (200.0, 1, 1)])
    result = replay(trace, server(), 1)

    assert latencies(result).e2e_s.tolist() == pytest.approx([1.0, 0.01, 0.001], abs=1e-9)
