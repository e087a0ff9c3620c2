"""What the router knows exactly: what it sent, and how far each of these requests has come."""

from __future__ import annotations

import pytest

from router.domain.state import EngineSignals, LinearCost
from router.fleet_state.backend import BackendState
from router.fleet_state.capability import Capability
from router.fleet_state.flight import Flight
from router.health.breaker import BreakerConfig
from tests.fakes import FAST, ask, capability, spec, view

NOTHING: frozenset[str] = frozenset()


def flight(
    backend: BackendState, at: float, prompt: int = 1000, output: float = 100.0, cached: int = 0
) -> Flight:
    """Send one request."""
    sent = Flight(ask(prompt_tokens=prompt, forecast=output), backend, at, NOTHING, cached)
    backend.sent(sent, at)
    return sent


def loads(backend: BackendState) -> tuple[int, int, int, int, float, float]:
    return (
        backend.in_flight,
        backend.prefilling,
        backend.decoding,
        backend.pending_prefill_tokens,
        backend.context_tokens,
        backend.pending_output_tokens,
    )


def test_counts_follow_a_request_from_prefill_to_decode_to_its_end():
    backend = view()
    sent = flight(backend, 1.0, prompt=1000, output=100.0)
    assert loads(backend) == (
        1,
        1,
        0,
        1000,
        1050.0,
        50.0,
    )  # half of the output is behind it, half to come
    backend.first_token(sent, 2.0)
    assert loads(backend) == (1, 0, 1, 0, 1050.0, 50.0)
    backend.ended(sent, 9.0)
    assert loads(backend) == (0, 0, 0, 0, 0.0, 0.0)


def test_a_request_that_ends_before_its_first_token_leaves_nothing_behind():
    backend = view()
    first, second = flight(backend, 0.0), flight(backend, 0.0, prompt=500)
    backend.ended(first, 1.0)
    assert loads(backend) == (1, 1, 0, 500, 550.0, 50.0)
    backend.ended(second, 1.0)
    assert loads(backend) == (0, 0, 0, 0, 0.0, 0.0)


def test_a_cached_prefix_is_held_but_not_computed():
    backend = view()
    first = flight(backend, 0.0, prompt=1000, cached=600)
    # Each of 400 tokens attends to the 600 before them and to half of the 400 on average.
    assert (backend.pending_prefill_tokens, backend.pending_prefill_pairs) == (400, 400 * 800.0)
    assert backend.context_tokens == 1050.0
    second = flight(backend, 0.0, prompt=100)
    assert backend.pending_prefill_pairs == 400 * 800.0 + 100 * 50.0
    backend.first_token(first, 1.0)
    assert (backend.pending_prefill_tokens, backend.pending_prefill_pairs) == (100, 100 * 50.0)
    backend.ended(second, 2.0)
    assert (backend.pending_prefill_tokens, backend.pending_prefill_pairs) == (0, 0.0)


def test_a_prefill_that_is_presumed_over_is_over_once():
    backend = view()
    sent = flight(backend, 0.0)
    backend.prefilled(sent, 1.0)
    assert (backend.prefilling, backend.decoding, backend.pending_prefill_tokens) == (0, 1, 0)
    assert sent.first_token_s is None, "nobody saw it"
    backend.first_token(sent, 2.0)
    assert (backend.prefilling, backend.decoding) == (0, 1)
    assert sent.first_token_s == 2.0
    backend.ended(sent, 3.0)
    assert (backend.in_flight, backend.decoding) == (0, 0)


def test_rounding_never_accumulates_over_idle_moments():
    backend = view()
    for output in (0.1, 0.2, 0.3, 1e9, 0.7):
        both = [flight(backend, 0.0, output=output), flight(backend, 0.0, output=output / 3)]
        for sent in both:
            backend.ended(sent, 1.0)
        assert (backend.context_tokens, backend.pending_output_tokens) == (0.0, 0.0)


def test_a_flight_remembers_who_was_there_before_it():
    backend = view()
    backend.first_token(flight(backend, 0.0), 1.0)
    flight(backend, 2.0)
    third = flight(backend, 3.0)
    assert (third.decoding_at_dispatch, third.prefilling_at_dispatch) == (1, 1)


class TestPrefillClock:
    """``prefill_since_s``: when the oldest unfinished prefill can have started."""

    def test_starts_when_the_first_prompt_is_sent_to_an_idle_prefill(self):
        backend = view()
        flight(backend, 5.0)
        flight(backend, 6.0)
        assert backend.prefill_since_s == 5.0

    def test_the_next_prompt_starts_when_the_first_has_its_first_token(self):
        backend = view()
        first = flight(backend, 5.0)
        flight(backend, 6.0)
        backend.first_token(first, 8.0)
        assert backend.prefill_since_s == 8.0

    def test_the_next_prompt_starts_when_the_first_is_given_up(self):
        backend = view()
        first = flight(backend, 5.0)
        flight(backend, 6.0)
        backend.ended(first, 8.0)
        assert backend.prefill_since_s == 8.0

    def test_giving_up_a_later_prompt_does_not_undo_the_progress_of_the_first(self):
        backend = view()
        flight(backend, 5.0)
        later = flight(backend, 6.0)
        backend.ended(later, 8.0)
        assert backend.prefill_since_s == 5.0


def test_context_is_never_longer_than_the_kv_cache():
    able = capability(max_context_tokens=131_072, kv_capacity_tokens=40_000)
    assert BackendState(spec("t4-0"), 0, able, BreakerConfig()).max_context_tokens == 40_000


def test_a_scrape_replaces_the_last_and_tells_the_capacity_if_it_knows():
    backend = view()
    backend.scraped(EngineSignals(1.0, running=3, kv_capacity_tokens=50_000))
    assert backend.kv_capacity_tokens == 50_000
    backend.scraped(EngineSignals(2.0, waiting=1))
    assert backend.signals == EngineSignals(2.0, waiting=1)
    assert backend.kv_capacity_tokens == 50_000, "unknown is not zero"


def test_a_capacity_that_the_engine_no_longer_tells_is_forgotten():
    """It may be another engine by now, or one whose gauge was wrong and was mended."""
    able = capability(max_context_tokens=60_000, kv_capacity_tokens=40_000)
    backend = BackendState(spec("t4-0"), 0, able, BreakerConfig())
    backend.scraped(EngineSignals(1.0, kv_capacity_tokens=2_048))
    backend.scraped(EngineSignals(61.0, running=1))
    assert backend.max_context_tokens == 2_048, "a scrape or two may lack it"
    version = backend.version
    backend.scraped(EngineSignals(62.0, running=1))
    assert (backend.kv_capacity_tokens, backend.max_context_tokens) == (40_000, 40_000)
    assert backend.version > version
    backend.scraped(EngineSignals(63.0, kv_capacity_tokens=9_000))
    backend.scraped(EngineSignals(130.0, kv_capacity_tokens=16))
    assert backend.kv_capacity_tokens == 40_000, "nor is such a one told"


def test_corrections_multiply_the_prior_and_do_not_pile_up():
    backend = view()
    backend.correct(3.0, 5.0)
    backend.correct(2.0, 10.0)
    assert backend.correction == (2.0, 10.0)
    assert backend.cost == LinearCost(
        step_s=pytest.approx(0.100),
        prefill_s=pytest.approx(0.0002),
        seq_s=pytest.approx(0.002),
        context_s=pytest.approx(1e-5),
    )
    backend.correct(1.0, 1.0)
    assert backend.cost == FAST


def test_the_version_grows_with_every_change():
    backend = view()
    seen = [backend.version]

    def changed() -> None:
        assert backend.version > seen[-1]
        seen.append(backend.version)

    sent = flight(backend, 0.0)
    changed()
    backend.first_token(sent, 1.0)
    changed()
    backend.ended(sent, 2.0)
    changed()
    backend.scraped(EngineSignals(3.0, kv_capacity_tokens=12_345))
    changed()
    backend.correct(1.0, 2.0)
    changed()
    backend.reprice(0.5)
    changed()


def test_a_scrape_that_says_nothing_new_leaves_derived_figures_valid():
    """Signals have an age of their own; what is derived from the rest need not be done again."""
    backend = view()
    backend.scraped(EngineSignals(3.0, kv_capacity_tokens=12_345))
    version = backend.version
    backend.scraped(EngineSignals(4.0, running=7, kv_usage=0.5, kv_capacity_tokens=12_345))
    assert backend.version == version
    assert backend.signals.running == 7
    assert backend.kv_capacity_tokens == 12_345


@pytest.mark.parametrize("reason", ["ill", "draining", "breaker"])
def test_usable_means_well_and_not_leaving_and_not_failing(reason: str):
    backend = view()
    assert backend.usable
    if reason == "ill":
        backend.healthy = False
    elif reason == "draining":
        backend.draining = True
    else:
        for _ in range(3):
            backend.breaker.failed(0.0)
    assert not backend.usable


def test_capability_is_a_fact():
    with pytest.raises(AttributeError):
        capability().chunk_tokens = 1  # type: ignore[misc]
    assert isinstance(capability(), Capability)


def test_context_follows_the_kv_cache_that_the_engine_really_has():
    able = capability(max_context_tokens=60_000, kv_capacity_tokens=40_000)
    backend = BackendState(spec("t4-0"), 0, able, BreakerConfig())
    backend.scraped(EngineSignals(1.0, running=3))
    assert backend.max_context_tokens == 40_000, "unknown changes nothing"
    backend.scraped(EngineSignals(2.0, kv_capacity_tokens=9_000))
    assert backend.max_context_tokens == 9_000
    backend.scraped(EngineSignals(3.0, kv_capacity_tokens=0))
    assert backend.max_context_tokens == 9_000, "no engine holds nothing"
    backend.scraped(EngineSignals(4.0, kv_capacity_tokens=90_000))
    assert backend.max_context_tokens == 60_000


def test_a_kv_cache_that_could_serve_nobody_is_a_broken_gauge():
    able = capability(max_context_tokens=60_000, kv_capacity_tokens=40_000)
    backend = BackendState(spec("t4-0"), 0, able, BreakerConfig())
    backend.scraped(EngineSignals(1.0, kv_capacity_tokens=16))
    assert (backend.kv_capacity_tokens, backend.max_context_tokens) == (40_000, 40_000)
    backend.scraped(EngineSignals(2.0))
    assert backend.max_context_tokens == 40_000
    backend.scraped(EngineSignals(3.0, kv_capacity_tokens=2_048))
    assert backend.max_context_tokens == 2_048, "as little as may be configured is believed"


def test_an_engine_that_was_made_small_may_say_so():
    able = capability(max_context_tokens=60_000, kv_capacity_tokens=1_000)
    backend = BackendState(spec("t4-0"), 0, able, BreakerConfig())
    backend.scraped(EngineSignals(1.0, kv_capacity_tokens=992))
    assert backend.max_context_tokens == 992
