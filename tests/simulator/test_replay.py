"""A replay: same seed same bytes, nothing lost, truth kept from the router."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from router.config.build import rebuild_dispatcher
from router.domain.errors import ConfigError, TraceError, UnknownNameError
from router.log_replay import replay as replay_log
from router.policies.registry import POLICIES
from simulator.belief import OraclePredictor, believe, draw_error
from simulator.options import ReplayOptions
from simulator.results import RunResult, Status, latencies
from simulator.run import build_replay, policy_names, run_policy
from simulator.summary import summarize
from simulator.synthetic import builtin_trace
from simulator.traces.columns import Trace
from simulator.traces.record import TraceRecord
from tests.simulator.builders import MODEL, fleet_config, make_trace

DEFAULTS = ReplayOptions()


def short_trace(seconds: float = 60.0) -> Trace:
    return builtin_trace("azure-conv-like", duration_s=seconds, seed=1)


def figures(result: RunResult) -> str:
    summary = summarize(result)
    del summary["wall_s"], summary["cpu_s"]  # what it cost here, not what it found
    return json.dumps(summary)


# --- determinism -------------------------------------------------------------------------------


def test_same_seed_same_bytes_and_another_seed_other_choices() -> None:
    config, trace = fleet_config(), short_trace()
    one, two, other = (
        run_policy(trace, config, "random", replace(DEFAULTS, seed=seed)) for seed in (3, 3, 4)
    )

    assert figures(one) == figures(two)
    assert one.records.finished_s.tobytes() == two.records.finished_s.tobytes()
    assert one.records.backend != other.records.backend


@pytest.mark.parametrize("policy", ["least-request", "marginal-delay", "motley"])
def test_a_decision_log_reproduces_every_choice_byte_for_byte(policy: str) -> None:
    lines: list[bytes] = []
    run_policy(short_trace(20), fleet_config(), policy, DEFAULTS, log=lines.append)

    assert replay_log(lines, rebuild_dispatcher) == len(lines) - 1


def test_all_policies_see_the_same_arrivals_and_lengths() -> None:
    config, trace = fleet_config(), short_trace(20)
    results = [run_policy(trace, config, name, DEFAULTS) for name in ("random", "motley")]

    for result in results:
        assert result.trace is trace
        assert list(result.records.output_tokens) == list(trace.output_tokens)


def test_fast_and_exact_engines_tell_the_same_story() -> None:
    config, trace = fleet_config(), short_trace(40)
    fast, exact = (
        run_policy(trace, config, "motley", replace(DEFAULTS, engine=mode))
        for mode in ("fast", "exact")
    )

    assert fast.records.backend == exact.records.backend
    assert fast.preemptions == exact.preemptions
    for column in ("first_token_s", "finished_s"):
        ours, theirs = getattr(fast.records, column), getattr(exact.records, column)
        assert ours.tolist() == pytest.approx(theirs.tolist(), abs=1e-6)


def test_other_routers_policies_are_told_as_often_as_those_routers_poll() -> None:
    def scrapes(policy: str) -> int:
        lines: list[bytes] = []
        run_policy(short_trace(20), fleet_config(), policy, DEFAULTS, log=lines.append)
        return sum(b'"scrape"' in line for line in lines)

    every_second = scrapes("least-request")
    assert 15 * every_second < scrapes("llm-d-default") < 25 * every_second
    assert scrapes("smg-least-load") < every_second / 5


# --- nothing lost ------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_every_policy_serves_everything_a_healthy_fleet_can(policy: str) -> None:
    result = run_policy(short_trace(15), fleet_config(), policy, DEFAULTS)

    assert result.count(Status.COMPLETED) == len(result.trace)


def test_times_are_in_order_for_every_request() -> None:
    """I4: arrival <= dispatch <= first token <= last."""
    result = run_policy(short_trace(), fleet_config(), "motley", DEFAULTS)

    records = result.records
    stages = [result.trace.arrivals(), records.dispatched_s, records.first_token_s]
    stages.append(records.finished_s)
    for before, after in pairwise(stages):
        assert (np.asarray(before) <= np.asarray(after)).all()


def test_a_prompt_longer_than_any_context_is_rejected_and_the_rest_served() -> None:
    trace = make_trace([(0.0, 100, 10), (1.0, 900_000, 10), (2.0, 100, 10)])
    result = run_policy(trace, fleet_config(), "motley", DEFAULTS)

    assert list(result.records.status) == [Status.COMPLETED, Status.REJECTED, Status.COMPLETED]
    assert result.reasons == {"context_too_long": 1}


def test_an_answer_stops_at_the_context_limit_as_engines_stop() -> None:
    config = fleet_config([{"gpu": "a100-80", "max_model_len": 2048}])
    result = run_policy(make_trace([(0.0, 2000, 500)]), config, "motley", DEFAULTS)

    assert result.count(Status.COMPLETED) == 1
    assert result.records.output_tokens[0] == 48
    assert "cut" in result.notes[0]


def test_the_engines_own_503_sends_the_request_elsewhere() -> None:
    """A queue of no places: whoever cannot run at once is refused and tried elsewhere."""
    from simulator.replica.build import make_replica
    from simulator.replica.config import replica_config

    def tiny(spec: Any, truth: Any) -> Any:
        config = replace(replica_config(spec), max_num_seqs=1, max_num_queued_reqs=1)
        return make_replica(config, truth)

    trace = make_trace((0.0, 100, 50) for _ in range(12))
    result = run_policy(trace, fleet_config(), "random", DEFAULTS, replica_of=tiny)

    assert result.count(Status.COMPLETED) >= 3
    assert result.count(Status.COMPLETED) + result.count(Status.FAILED) == 12
    assert max(result.records.attempts) > 1
    assert all(attempts <= 4 for attempts in result.records.attempts)


def test_clients_that_lose_patience_are_cancelled_everywhere() -> None:
    options = replace(DEFAULTS, client_timeout_s=2.0)
    replay = build_replay(
        make_trace((0.1 * i, 500, 400) for i in range(40)), fleet_config(), "motley", options
    )
    replay.run()

    assert replay.reasons["client_timeout"] > 0
    assert replay.dispatchers[0].cancelled == replay.reasons["client_timeout"]
    assert replay.dispatchers[0].in_flight == 0


# --- truth is not belief -----------------------------------------------------------------------


def test_the_error_of_a_belief_has_the_spread_asked_for_and_belongs_to_the_backend() -> None:
    errors = [draw_error(f"t4-{n}", 0.3, seed=1) for n in range(2000)]
    logs = np.log([[error.prefill, error.decode] for error in errors])

    assert logs.std(axis=0) == pytest.approx([0.3, 0.3], rel=0.08)
    assert np.median(logs, axis=0) == pytest.approx([0.0, 0.0], abs=0.03)
    assert draw_error("t4-7", 0.3, seed=1) == errors[7]
    assert draw_error("t4-7", 0.3, seed=2) != errors[7]


def test_belief_is_the_truth_off_by_that_error_and_the_oracle_s_is_not_off() -> None:
    config = fleet_config([{"gpu": "t4", "tensor_parallel": 2}])
    spec = config.fleet.backends[0]
    truth = config.hardware.iteration_model(spec)
    wrong = believe({spec.name: truth}, replace(DEFAULTS, model_error=0.3))(spec)
    right = believe({spec.name: truth}, replace(DEFAULTS, oracle=True))(spec)

    error = draw_error(spec.name, 0.3, seed=0)
    assert wrong == truth.linear().scaled(prefill=error.prefill, decode=error.decode)
    assert right == truth.linear()


def test_no_router_is_told_an_output_length_unless_it_is_an_oracle() -> None:
    """I6: two traces that differ in lengths only get the same first decision and forecast."""
    firsts = []
    for output in (5, 500):
        lines: list[bytes] = []
        trace = make_trace([(0.0, 100, output)], max_tokens=512)
        run_policy(trace, fleet_config(), "motley", DEFAULTS, log=lines.append)
        firsts.append(next(line for line in lines if b'"dispatch"' in line))

    assert firsts[0] == firsts[1]


def test_an_oracle_says_so_and_knows_the_lengths() -> None:
    trace = make_trace([(0.0, 100, 7), (1.0, 100, 9)])
    result = run_policy(trace, fleet_config(), "motley", replace(DEFAULTS, oracle=True))

    assert result.notes[0].startswith("ORACLE")
    assert "ORACLE" in summarize(result)["notes"][0]
    replay = build_replay(trace, fleet_config(), "motley", replace(DEFAULTS, oracle=True))
    assert isinstance(replay.dispatchers[0]._predictor, OraclePredictor)


def test_feedback_learns_how_wrong_the_belief_is() -> None:
    """A belief 2.7 times off is corrected by watching; one not watched stays off."""
    config = fleet_config([{"gpu": "a100-80"}])
    trace = short_trace(120)
    options = replace(DEFAULTS, model_error=1.0, seed=5)
    corrected = {}
    for feedback in (True, False):
        replay = build_replay(trace, config, "motley", replace(options, feedback=feedback))
        replay.run()
        corrected[feedback] = replay.dispatchers[0].state.get("a100-80-0").correction
    error = draw_error("a100-80-0", 1.0, seed=5)

    assert corrected[False] == (1.0, 1.0)
    assert corrected[True][1] == pytest.approx(1.0 / error.decode, rel=0.35)


# --- topology ----------------------------------------------------------------------------------


def test_network_delay_is_paid_there_and_back() -> None:
    near = fleet_config([{"gpu": "a100-80"}])
    far = fleet_config([{"gpu": "a100-80", "zone": "far"}])
    trace = make_trace([(0.0, 100, 10)])

    here = run_policy(trace, near, "motley", DEFAULTS)
    there = run_policy(trace, far, "motley", replace(DEFAULTS, zone_delay_s={"far": 0.25}))

    paid = latencies(there).ttft_s[0] - latencies(here).ttft_s[0]
    assert paid == pytest.approx(0.5, abs=1e-9)


def test_gateway_replicas_split_the_requests_and_know_only_their_own() -> None:
    replay = build_replay(
        make_trace((0.2 * i, 100, 20) for i in range(30)),
        fleet_config(),
        "least-request",
        replace(DEFAULTS, routers=3),
    )
    replay.run()

    assert [dispatcher.arrived for dispatcher in replay.dispatchers] == [10, 10, 10]
    assert replay.records.status.count(Status.COMPLETED) == 30


def test_shared_prefixes_are_found_by_the_engine() -> None:
    shared = tuple(range(1, 33))
    trace = Trace("p").extend(
        TraceRecord(10.0 * i, 520, 10, prefix_hashes=shared, prefix_block_tokens=16)
        for i in range(4)
    )
    result = run_policy(trace, fleet_config([{"gpu": "a100-80"}]), "motley", DEFAULTS)

    assert list(result.records.cached_tokens) == [0, 512, 512, 512]
    assert summarize(result)["cached_token_ratio"] == pytest.approx(3 * 512 / (4 * 520))


def test_the_next_turn_finds_the_answer_of_this_one_in_the_cache() -> None:
    """Engines keep prompt and answer; the trace's next turn tells what the answer's blocks are."""
    first, second = tuple(range(1, 5)), tuple(range(1, 11))
    turns = [
        TraceRecord(0.0, 64, 80, session="s", prefix_hashes=first, prefix_block_tokens=16),
        TraceRecord(60.0, 170, 5, session="s", prefix_hashes=second, prefix_block_tokens=16),
    ]
    result = run_policy(
        Trace("chat").extend(turns), fleet_config([{"gpu": "a100-80"}]), "motley", DEFAULTS
    )

    assert result.records.cached_tokens[1] > 64


# --- bad input ---------------------------------------------------------------------------------


def test_a_model_nobody_serves_is_an_error_with_the_remedy() -> None:
    trace = make_trace([(0.0, 10, 10)], model="qwen-9000b")

    with pytest.raises(ConfigError, match=rf"'qwen-9000b'.*served: {MODEL}.*--model"):
        run_policy(trace, fleet_config(), "motley", DEFAULTS)


def test_an_alias_of_the_fleet_file_stands_for_its_model() -> None:
    config = replace(fleet_config(), aliases={"gpt-4o": MODEL})
    trace = make_trace([(0.0, 10, 10)], model="gpt-4o")

    assert run_policy(trace, config, "motley", DEFAULTS).count(Status.COMPLETED) == 1


def test_a_class_without_an_slo_is_noted() -> None:
    trace = make_trace([(0.0, 10, 10)], slo_class="platinum")

    (note,) = run_policy(trace, fleet_config(), "motley", DEFAULTS).notes
    assert "'platinum'" in note


def test_an_empty_or_untimed_trace_is_an_error() -> None:
    untimed = make_trace([(0.0, 10, 10)])
    untimed.timed = False

    with pytest.raises(TraceError, match="empty"):
        run_policy(Trace("nothing"), fleet_config(), "motley", DEFAULTS)
    with pytest.raises(TraceError, match="--arrivals poisson"):
        run_policy(untimed, fleet_config(), "motley", DEFAULTS)


def test_policy_names_expand_and_typos_are_caught() -> None:
    assert policy_names(["motley", "all", "motley"])[0] == "motley"
    assert set(policy_names(["all"])) == set(POLICIES)
    with pytest.raises(UnknownNameError, match="Did you mean 'round-robin'"):
        policy_names(["round-robbin"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"model_error": -0.1},
        {"routers": 0},
        {"client_timeout_s": 0.0},
        {"scrape_interval_s": float("nan")},
        {"length_predictor": "crystal-ball"},
        {"zone_delay_s": {"a": -1.0}},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ReplayOptions(**wrong)
