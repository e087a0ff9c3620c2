"""One line per call; what the replay makes of them is in ``tests/parity``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.decision_line import facts_of
from router.decision_log import LoggingDispatcher
from router.domain.errors import BadInputError, UnknownNameError
from router.domain.request import LengthForecast
from router.log_replay import recorded_capability
from router.perf.length import ConstantLengthPredictor
from tests.fakes import LimitPolicy, ask, capability, fleet_state, spec


@pytest.fixture
def lines() -> list[bytes]:
    return []


@pytest.fixture
def dispatcher(lines: list[bytes]) -> LoggingDispatcher:
    made = LoggingDispatcher(
        fleet_state("a"),
        LimitPolicy(1),
        ConstantLengthPredictor(LengthForecast(100.0, 200.0)),
        queue_size=1,
    )
    return made.log_to(lines.append, {"policy": "limit"})


def last(lines: list[bytes]) -> dict[str, Any]:
    assert lines[-1].endswith(b"\n")
    assert lines[-1].count(b"\n") == 1
    decoded: dict[str, Any] = json.loads(lines[-1])
    return decoded


def test_the_first_line_says_how_the_dispatcher_was_built(
    dispatcher: LoggingDispatcher, lines: list[bytes]
):
    assert last(lines) == {"call": "open", "policy": "limit"}


def test_a_dispatch_holds_the_request_the_forecast_and_the_answer(
    dispatcher: LoggingDispatcher, lines: list[bytes]
):
    dispatcher.dispatch(ask("r", arrival_s=1.0, prefix_hashes=(7, 8), prefix_block_tokens=16), 1.5)
    assert last(lines) == {
        "call": "dispatch",
        "now": 1.5,
        "args": {
            "request": {
                "request_id": "r",
                "model": "llama-3.1-8b",
                "arrival_s": 1.0,
                "prompt_tokens": 1000,
                "max_tokens": None,
                "slo_class": "interactive",
                "tenant": "",
                "session": "",
                "prefix_hashes": [7, 8],
                "prefix_block_tokens": 16,
                "forecast": {"mean_tokens": 100.0, "p90_tokens": 200.0, "square_tokens": 0.0},
            }
        },
        "answer": {"assign": "a"},
    }


def test_waits_and_rejections_say_why(dispatcher: LoggingDispatcher, lines: list[bytes]):
    dispatcher.dispatch(ask("r"), 0.0)
    dispatcher.dispatch(ask("s"), 0.0)
    assert last(lines)["answer"] == {"wait": "saturated"}
    dispatcher.dispatch(ask("t"), 0.0)
    assert last(lines)["answer"] == {"reject": "queue_full", "retry_after_s": 15}


def test_a_poll_holds_what_it_decided_even_if_that_is_nothing(
    dispatcher: LoggingDispatcher, lines: list[bytes]
):
    dispatcher.dispatch(ask("r"), 0.0)
    dispatcher.dispatch(ask("s"), 0.0)
    dispatcher.poll(1.0)
    assert last(lines) == {"call": "poll", "now": 1.0, "args": {}, "answer": []}
    dispatcher.complete("r", 2.0, output_tokens=5)
    dispatcher.poll(2.0)
    assert last(lines)["answer"] == [["s", {"assign": "a"}]]


def test_the_rest_hold_their_arguments(dispatcher: LoggingDispatcher, lines: list[bytes]):
    dispatcher.dispatch(ask("r"), 0.0)
    dispatcher.first_token("r", 0.5)
    assert last(lines) == {"call": "first_token", "now": 0.5, "args": {"request_id": "r"}}
    dispatcher.complete("r", 1.0, output_tokens=5, prompt_tokens=990)
    assert last(lines)["args"] == {
        "request_id": "r",
        "output_tokens": 5,
        "prompt_tokens": 990,
        "cached_tokens": None,
    }
    dispatcher.add_backend(spec("b", labels={"rack": "7"}), 2.0)
    joined = last(lines)["args"]
    assert joined["spec"]["labels"] == {"rack": "7"}
    assert joined["capability"]["cost"]["step_s"] == 0.010


def test_a_call_that_was_refused_is_not_in_the_log(
    dispatcher: LoggingDispatcher, lines: list[bytes]
):
    dispatcher.dispatch(ask("r"), 0.0)
    before = list(lines)
    with pytest.raises(BadInputError):
        dispatcher.dispatch(ask("r"), 1.0)
    with pytest.raises(UnknownNameError):
        dispatcher.complete("nobody", 1.0, output_tokens=1)
    with pytest.raises(UnknownNameError):
        dispatcher.drain("nobody", 1.0)
    with pytest.raises(BadInputError):
        dispatcher.add_backend(spec("a"), 1.0)
    assert lines == before


def test_an_engine_that_keeps_no_prompts_is_told_and_one_that_does_is_as_in_older_logs():
    for keeps in (True, False):
        known = capability(prefix_caching=keeps)
        facts = facts_of(known)
        assert ("prefix_caching" in facts) != keeps
        assert recorded_capability(facts) == known
