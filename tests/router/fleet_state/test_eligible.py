"""Where one request may go, and what it hears if it may go nowhere."""

from __future__ import annotations

import pytest

from router.domain.decision import Reject, Wait
from router.domain.request import Request
from router.domain.state import EngineSignals
from router.fleet_state.eligible import eligible
from router.fleet_state.fleet import FleetState
from tests.fakes import MODEL, ask, capability, fleet_state

CAPABILITIES = {
    "t4": capability(max_context_tokens=4_096),
    "v100": capability(max_context_tokens=8_192),
    "a100": capability(max_context_tokens=32_768),
}


@pytest.fixture
def state() -> FleetState:
    return fleet_state("t4", "v100", "a100", capabilities=CAPABILITIES)


def where(
    state: FleetState, request: Request, *tried: str, strict: bool = True
) -> list[str] | Wait | Reject:
    found = eligible(state, request, frozenset(tried), 0.0, strict_context=strict)
    return [b.spec.name for b in found] if isinstance(found, list) else found


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "fits"),
    [
        (4_095, None, ["t4", "v100", "a100"]),  # room for one token of answer
        (4_096, None, ["v100", "a100"]),
        (3_000, 1_096, ["t4", "v100", "a100"]),  # exactly full
        (3_000, 1_097, ["v100", "a100"]),
        (3_000, 0, ["t4", "v100", "a100"]),
        (32_767, None, ["a100"]),
    ],
)
def test_prompt_and_answer_must_fit(
    state: FleetState, prompt: int, max_tokens: int | None, fits: list[str]
):
    assert where(state, ask(prompt_tokens=prompt, max_tokens=max_tokens)) == fits


def test_a_limit_that_fits_nowhere_is_the_engines_affair_as_long_as_the_prompt_fits(
    state: FleetState,
):
    assert where(state, ask(prompt_tokens=5_000, max_tokens=10**9)) == ["v100", "a100"]


def test_the_fleets_own_list_comes_back_where_nothing_restricts_the_request(state: FleetState):
    found = eligible(state, ask(), frozenset(), 0.0, strict_context=True)
    assert found is state.candidates(MODEL, 0.0)


def test_backends_that_failed_the_request_are_left_out(state: FleetState):
    assert where(state, ask(), "v100") == ["t4", "a100"]


def test_when_all_usable_ones_were_tried_that_is_the_end(state: FleetState):
    state.set_health("a100", False)
    found = where(state, ask(), "v100", "t4")
    assert isinstance(found, Reject)
    assert found.reason == "all_backends_tried"
    assert "t4, v100" in found.message


def test_a_model_that_nobody_serves(state: FleetState):
    found = where(state, ask(model="gpt-9"))
    assert isinstance(found, Reject)
    assert (found.reason, found.retry_after_s) == ("unknown_model", None)
    assert "'gpt-9'" in found.message
    assert f"served: {MODEL}" in found.message


def test_nobody_well_is_worth_waiting_for(state: FleetState):
    for name in CAPABILITIES:
        state.set_health(name, False)
    assert where(state, ask()) == Wait("no_healthy_backend")


class TestTooLong:
    def test_for_every_backend(self, state: FleetState):
        found = where(state, ask(prompt_tokens=32_768))
        assert isinstance(found, Reject)
        assert (found.reason, found.retry_after_s) == ("context_too_long", None)
        assert "32768 tokens" in found.message
        assert "is 32768 tokens" in found.message

    def test_for_all_but_one_that_is_down_waits_for_that_one(self, state: FleetState):
        state.set_health("a100", False)
        assert where(state, ask(prompt_tokens=10_000)) == Wait("no_healthy_backend")

    def test_but_nobody_waits_for_one_that_is_being_drained(self, state: FleetState):
        state.drain("a100")
        found = where(state, ask(prompt_tokens=10_000))
        assert isinstance(found, Reject)
        assert found.reason == "context_too_long"
        assert "is 8192 tokens" in found.message

    @pytest.mark.parametrize("strict", [True, False])
    def test_for_all_but_one_that_failed_it_is_not_blamed_on_the_prompt(
        self, state: FleetState, strict: bool
    ):
        found = where(state, ask(prompt_tokens=10_000), "a100", strict=strict)
        assert isinstance(found, Reject)
        assert found.reason == "all_backends_tried"

    def test_by_an_estimate_goes_to_the_longest_context_and_the_engine_judges(
        self, state: FleetState
    ):
        assert where(state, ask(prompt_tokens=99_999), strict=False) == ["a100"]


def test_an_engine_that_says_it_has_too_little_kv_is_not_asked(state: FleetState):
    """Its card was thought to hold more: what it says of itself counts, once it has said it."""
    long = ask(prompt_tokens=6_000)
    assert where(state, long) == ["v100", "a100"]
    state.scrape("v100", EngineSignals(1.0, kv_capacity_tokens=5_000))
    assert where(state, long) == ["a100"]
    assert where(state, ask()) == ["t4", "v100", "a100"]
    state.scrape("a100", EngineSignals(1.0, kv_capacity_tokens=5_000))
    found = where(state, long)
    assert isinstance(found, Reject)
    assert found.reason == "context_too_long"
    assert "is 5000 tokens" in found.message
    state.scrape("v100", EngineSignals(2.0, kv_capacity_tokens=50_000))
    assert where(state, long) == ["v100"]
