"""Who may take a request of a model."""

from __future__ import annotations

import math

import pytest

from router.domain.errors import BadInputError, ConfigError, UnknownNameError
from router.domain.state import EngineSignals
from router.fleet_state.fleet import FleetState
from tests.fakes import FAST, MODEL, SLOW, capability, fleet_state, spec


def names(state: FleetState, now: float = 0.0, model: str = MODEL) -> list[str]:
    return [backend.spec.name for backend in state.candidates(model, now)]


def trip(state: FleetState, name: str, now: float) -> None:
    backend = state.get(name)
    for _ in range(3):
        backend.breaker.failed(now)
    state.changed()


def test_candidates_are_the_usable_backends_of_the_model_in_the_order_of_the_file():
    state = fleet_state("c", "a", spec("other", model="qwen2.5-7b"), "b")
    assert names(state) == ["c", "a", "b"]
    assert names(state, model="qwen2.5-7b") == ["other"]
    assert names(state, model="gpt-9") == []
    assert state.models == {MODEL, "qwen2.5-7b"}
    assert (state.serves(MODEL), state.serves("gpt-9")) == (True, False)


def test_models_that_clients_invent_are_not_remembered():
    state = fleet_state("a")
    for n in range(100):
        state.candidates(f"invented-{n}", 0.0)
    names(state)
    assert set(state._usable) == {MODEL}


def test_health_and_draining_take_effect_at_once():
    state = fleet_state("a", "b", "c")
    assert names(state) == ["a", "b", "c"]
    state.set_health("a", False)
    assert names(state) == ["b", "c"]
    state.drain("b")
    assert names(state) == ["c"]
    state.set_health("a", True)
    assert names(state) == ["a", "c"]
    assert state.serves(MODEL), "a model is served while anybody has it, well or not"


def test_an_open_breaker_takes_a_backend_out_until_it_may_be_probed():
    state = fleet_state("a", "b")
    trip(state, "a", now=10.0)
    assert names(state, 11.9) == ["b"]
    assert state.next_half_open_s() == 12.0
    assert names(state, 12.0) == ["a", "b"]
    assert state.next_half_open_s() == math.inf


def test_the_next_probe_is_that_of_the_first_breaker_to_reopen():
    state = fleet_state("a", "b")
    trip(state, "b", now=5.0)
    trip(state, "a", now=6.0)
    assert state.next_half_open_s() == 7.0
    assert names(state, 7.0) == ["b"]
    assert state.next_half_open_s() == 8.0


def test_backends_come_and_go_and_indices_are_never_used_twice():
    state = fleet_state("a", "b")
    state.remove("a")
    assert names(state) == ["b"]
    state.add(spec("a"))
    assert [(b.spec.name, b.index) for b in state.candidates(MODEL, 0.0)] == [("b", 1), ("a", 2)]


def test_a_name_is_taken_once():
    with pytest.raises(ConfigError, match="'a' exists already"):
        fleet_state("a", "a")


def test_a_capability_given_with_the_backend_replaces_the_looked_up_one():
    state = fleet_state("a")
    assert state.add(spec("b"), capability(SLOW)).cost == SLOW
    assert state.add(spec("c")).cost == FAST


def test_unknown_names_suggest_the_near_ones():
    state = fleet_state("a100-80-0")
    with pytest.raises(UnknownNameError, match="Did you mean 'a100-80-0'"):
        state.get("a100-80-1")
    for speak in (state.remove, state.drain, lambda name: state.set_health(name, True)):
        with pytest.raises(UnknownNameError):
            speak("nobody")


def test_telemetry_of_a_backend_that_has_left_is_dropped():
    state = fleet_state("a", "b")
    state.remove("a")
    state.scrape("a", EngineSignals(1.0, running=5))
    state.correct("a", 2.0, 2.0)
    assert state.get("b").signals is None
    assert state.get("b").cost == FAST


def test_prices_are_by_group_and_a_group_without_one_costs_nothing():
    state = fleet_state("a", spec("t", gpu="t4"))
    group = state.get("t").spec.group
    state.set_prices({group: 3.0, "nobody's": 1.0})
    assert (state.get("a").price, state.get("t").price) == (0.0, 3.0)
    state.set_prices({})
    assert state.get("t").price == 0.0


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_correction_that_would_spoil_every_score_is_refused(bad: float):
    state = fleet_state("a")
    with pytest.raises(BadInputError, match="corrections of backend 'a'"):
        state.correct("a", bad, 1.0)
    with pytest.raises(BadInputError, match="corrections of backend 'a'"):
        state.correct("a", 1.0, bad)
    assert state.get("a").cost == FAST


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
def test_a_price_that_would_spoil_every_score_is_refused_and_none_is_changed(bad: float):
    state = fleet_state("a", spec("t", gpu="t4"))
    fine, spoilt = state.get("a").spec.group, state.get("t").spec.group
    with pytest.raises(BadInputError, match="price of group 't4/vllm"):
        state.set_prices({fine: 1.0, spoilt: bad})
    assert state.get("a").price == 0.0
