"""Faults on a timeline: what requests and the router see of them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.domain.errors import ConfigError, UnknownNameError
from simulator.faults import Fault, load_faults
from simulator.options import ReplayOptions
from simulator.replay import Replay
from simulator.results import Status, latencies
from simulator.run import build_replay, run_policy
from tests.simulator.builders import fleet_config, make_trace

OPTIONS = ReplayOptions(model_error=0.0)
TWO = [{"gpu": "a100-80", "count": 2}]
IMPATIENT = {"reliability": {"first_byte_timeout_s": 5.0, "idle_timeout_s": 3.0}}


def steady(count: int = 100, gap_s: float = 0.5, output: int = 100) -> Any:
    return make_trace((gap_s * i, 200, output) for i in range(count))


def replayed(trace: Any, faults: list[Fault], fleet: Any = TWO, **sections: Any) -> Replay:
    config = fleet_config(fleet, **sections)
    replay = build_replay(trace, config, "least-request", OPTIONS, faults=faults)
    replay.run()
    return replay


def sent_to(replay: Replay, backend: int, start_s: float, end_s: float) -> int:
    records = replay.records
    return sum(
        1
        for i in range(len(records))
        if records.backend[i] == backend and start_s <= records.dispatched_s[i] < end_s
    )


def check_conservation(replay: Replay) -> None:
    """I1 and I2, on both sides of the glass."""
    records = replay.records
    assert Status.PENDING not in records.status
    for ending in ("completed", "rejected", "failed", "cancelled"):
        total = sum(getattr(dispatcher, ending) for dispatcher in replay.dispatchers)
        assert total == records.status.count(Status[ending.upper()]), ending
    assert sum(d.arrived for d in replay.dispatchers) == len(records)
    assert all(d.in_flight == d.queued == 0 for d in replay.dispatchers)
    for dispatcher in replay.dispatchers:
        assert all(
            b.in_flight == b.prefilling == b.decoding == 0 for b in dispatcher.state.backends
        )


# --- one test per kind -------------------------------------------------------------------------


def test_a_slow_backend_slows_its_own_requests_and_recovers() -> None:
    fault = Fault(at_s=10, backend="a100-80-0", kind="slow", factor=4.0, for_s=20)
    replay = replayed(steady(), [fault], fleet=[{"gpu": "a100-80"}])
    e2e_s = np.array(replay.records.finished_s) - np.array([0.5 * i for i in range(100)])

    before, during, after = e2e_s[:15].mean(), e2e_s[25:50].mean(), e2e_s[75:].mean()
    assert during > 2.5 * before
    assert after == pytest.approx(before, rel=0.1)
    check_conservation(replay)


def test_a_killed_backend_loses_streams_and_retries_what_had_no_byte() -> None:
    trace = make_trace([(0.0, 200, 3000), (0.01, 200, 3000), (9.999, 8000, 50)])
    fault = Fault(at_s=10.0, backend="a100-80-0", kind="kill")
    replay = replayed(trace, [fault])
    status, attempts = list(replay.records.status), list(replay.records.attempts)

    assert sorted(status[:2]) == [Status.COMPLETED, Status.FAILED]  # one stream on each
    assert status[2] == Status.COMPLETED  # no byte had come: tried again, or never lost
    assert attempts[:2] == [1, 1]  # I8
    assert replay.reasons["engine_died"] == 1
    check_conservation(replay)


def test_nothing_is_sent_to_a_dead_backend_once_that_is_known() -> None:
    fault = Fault(at_s=10, backend="a100-80-0", kind="kill")
    replay = replayed(steady(), [fault])

    assert sent_to(replay, 0, 0, 10) > 5
    assert sent_to(replay, 0, 40, 60) == 0
    check_conservation(replay)


def test_a_restarted_backend_comes_back_cold_and_is_used_again() -> None:
    fault = Fault(at_s=5, backend="a100-80-0", kind="restart", for_s=10)
    replay = replayed(steady(), [fault])

    assert sent_to(replay, 0, 35, 60) > 0
    check_conservation(replay)


def test_a_hung_backend_is_given_up_after_its_timeouts() -> None:
    fault = Fault(at_s=10, backend="a100-80-0", kind="hang")
    replay = replayed(steady(), [fault], **IMPATIENT)

    assert replay.reasons["idle_timeout"] > 0  # streams that stopped
    assert replay.records.status.count(Status.COMPLETED) > 80
    assert max(replay.records.attempts) > 1  # sent elsewhere before its first byte
    check_conservation(replay)


def test_a_short_hang_delays_and_loses_nothing() -> None:
    fault = Fault(at_s=10, backend="a100-80-0", kind="hang", for_s=2)
    trace, one = steady(60), [{"gpu": "a100-80"}]
    replay = replayed(trace, [fault], fleet=one, **IMPATIENT)
    calm = replayed(trace, [], fleet=one, **IMPATIENT)

    assert replay.records.status.count(Status.COMPLETED) == 60
    delay = np.array(replay.records.finished_s) - np.array(calm.records.finished_s)
    assert delay.max() == pytest.approx(2.0, abs=0.2)
    assert delay.min() > -0.05  # batches meet other company afterwards
    check_conservation(replay)


def test_errors_are_retried_elsewhere_and_open_the_breaker() -> None:
    fault = Fault(at_s=10, backend="a100-80-0", kind="error", for_s=20)
    replay = replayed(steady(), [fault])

    assert replay.records.status.count(Status.COMPLETED) == 100
    bounced = sum(1 for attempts in replay.records.attempts if attempts > 1)
    assert 0 < bounced < 20  # the breaker spares the rest
    assert sent_to(replay, 0, 45, 60) > 0
    check_conservation(replay)


def test_with_every_backend_erring_requests_fail_and_none_hangs() -> None:
    faults = [Fault(at_s=0, backend=f"a100-80-{k}", kind="error") for k in range(2)]
    replay = replayed(steady(20), faults, reliability={"queue_timeout_s": 5.0})

    assert replay.records.status.count(Status.COMPLETED) == 0
    check_conservation(replay)


def test_who_had_an_attempt_and_then_waited_in_vain_has_failed() -> None:
    """Not rejected: rejected are those turned away without an attempt, as the dispatcher counts."""
    burst = make_trace((0.01 * i, 3000, 300) for i in range(300))
    config = fleet_config(TWO, reliability={"queue_timeout_s": 1.0})
    killed = Fault(at_s=2.0, backend="a100-80-0", kind="kill")
    replay = build_replay(burst, config, "motley", OPTIONS, faults=[killed])
    replay.run()

    records = replay.records
    waited = [i for i in range(len(burst)) if math.isfinite(records.dispatched_s[i])]
    assert any(records.status[i] == Status.FAILED for i in waited)
    assert replay.reasons["queue_timeout"] > records.status.count(Status.REJECTED)
    check_conservation(replay)


def test_a_backend_that_joins_serves_from_then_on() -> None:
    fault = Fault(at_s=20, backend="a100-80-1", kind="join")
    replay = replayed(steady(), [fault])

    assert sent_to(replay, 1, 0, 20) == 0
    assert sent_to(replay, 1, 20, 60) > 0
    check_conservation(replay)


def test_a_drained_backend_finishes_what_it_has_and_may_return() -> None:
    fault = Fault(at_s=10, backend="a100-80-0", kind="drain", for_s=20)
    replay = replayed(steady(), [fault])

    assert sent_to(replay, 0, 10, 30) == 0
    assert sent_to(replay, 0, 30, 60) > 0
    assert replay.records.status.count(Status.COMPLETED) == 100
    check_conservation(replay)


def test_feedback_routes_around_a_throttled_card() -> None:
    config = fleet_config(TWO)
    fault = Fault(at_s=20, backend="a100-80-0", kind="slow", factor=6.0)
    trace = make_trace((0.15 * i, 400, 150) for i in range(600))
    on, off = (
        run_policy(
            trace, config, "marginal-delay", replace(OPTIONS, feedback=learn), faults=[fault]
        )
        for learn in (True, False)
    )

    assert np.mean(latencies(on).e2e_s) < np.mean(latencies(off).e2e_s)


# --- all of them, at random --------------------------------------------------------------------

BACKENDS = ("a100-80-0", "v100-32-0", "l4-0")
KINDS = ("slow", "kill", "hang", "error", "restart", "join", "drain")


@st.composite
def timelines(draw: st.DrawFn) -> list[Fault]:
    faults = []
    for _ in range(draw(st.integers(0, 6))):
        kind: Any = draw(st.sampled_from(KINDS))
        lasts = None if kind == "join" else draw(st.none() | st.floats(0.5, 30))
        faults.append(
            Fault(
                at_s=draw(st.floats(0, 40)),
                backend=draw(st.sampled_from(BACKENDS)),
                kind=kind,
                factor=draw(st.floats(0.5, 10)) if kind == "slow" else None,
                for_s=lasts,
            )
        )
    return sorted(faults, key=lambda fault: fault.at_s)


@settings(max_examples=60, deadline=None)
@given(
    faults=timelines(),
    rows=st.lists(
        st.tuples(st.floats(0, 40), st.integers(1, 6000), st.integers(1, 300)),
        min_size=1,
        max_size=40,
    ),
    policy=st.sampled_from(["random", "least-request", "motley"]),
    routers=st.integers(1, 3),
    patience=st.none() | st.floats(0.5, 20),
    delay=st.sampled_from([0.0, 0.1]),
)
def test_nothing_is_lost_whatever_happens(  # noqa: PLR0917 - one argument per axis
    faults: list[Fault],
    rows: list[tuple[float, int, int]],
    policy: str,
    routers: int,
    patience: float | None,
    delay: float,
) -> None:
    """I1, I2, I4 and I8 under random faults, impatient clients and many routers."""
    fleet = [{"gpu": g, "zone": "z"} for g in ("a100-80", "v100-32", "l4")]
    reliability = {"queue_timeout_s": 10.0, "first_byte_timeout_s": 5.0, "idle_timeout_s": 3.0}
    options = replace(
        OPTIONS, routers=routers, client_timeout_s=patience, zone_delay_s={"z": delay}
    )
    trace = make_trace(sorted(rows))
    replay = build_replay(
        trace, fleet_config(fleet, reliability=reliability), policy, options, faults=faults
    )
    replay.run()

    check_conservation(replay)
    records = replay.records
    for i in range(len(records)):
        if records.status[i] == Status.COMPLETED:
            assert trace.arrival_s[i] <= records.dispatched_s[i] <= records.first_token_s[i]
            assert records.first_token_s[i] <= records.finished_s[i]
            assert records.output_tokens[i] == trace.output_tokens[i]  # I9


# --- the file ----------------------------------------------------------------------------------


def test_a_timeline_file_is_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "faults.yaml"
    path.write_text(
        "- {at_s: 60, backend: t4-0, kind: kill}\n"
        "- {at_s: 5, backend: a100-80-0, kind: slow, factor: 3, for_s: 10}\n"
    )

    slow, kill = load_faults(path)

    assert (slow.kind, slow.factor, slow.lasts_s) == ("slow", 3.0, 10.0)
    assert (kill.kind, kill.lasts_s) == ("kill", float("inf"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- {at_s: 1, backend: a, kind: melt}", "melt"),
        ("- {at_s: 1, backend: a, kind: kill, fro_s: 3}", "fro_s"),
        ("- {at_s: -1, backend: a, kind: kill}", "at_s must be"),
        ("- {at_s: 1, backend: a, kind: slow}", "needs a factor"),
        ("- {at_s: 1, backend: a, kind: kill, factor: 3}", "only slow takes a factor"),
        ("- {at_s: 1, backend: a, kind: hang, for_s: 0}", "for_s must be more than 0"),
        ("at_s: 1", "list of faults"),
        ("- [1, 2", "list of faults"),
    ],
)
def test_a_timeline_that_makes_no_sense_says_where(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "faults.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=problem):
        load_faults(path)


def test_a_fault_on_no_such_backend_is_an_error() -> None:
    fault = Fault(at_s=1, backend="a100-0", kind="kill")

    with pytest.raises(UnknownNameError, match="a100-80-0"):
        run_policy(steady(3), fleet_config(TWO), "motley", OPTIONS, faults=[fault])
