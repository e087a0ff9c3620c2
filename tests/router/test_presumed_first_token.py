"""Prefill presumed over: the books move on, nobody learns from it, and the log replays it."""

from __future__ import annotations

from router.config.build import build_dispatcher, rebuild_dispatcher
from router.config.load import load_config
from router.log_replay import replay
from tests.fakes import MODEL, Recorder, ask, make_dispatcher


def test_the_prompt_stops_counting_as_backlog_and_the_outcome_has_no_first_token() -> None:
    recorder = Recorder()
    dispatcher = make_dispatcher("a", observers=[recorder])
    (backend,) = dispatcher.state.backends
    dispatcher.dispatch(ask("r"), 0.0)
    assert (backend.prefilling, backend.decoding) == (1, 0)
    dispatcher.presume_first_token("r", 0.1)
    assert (backend.prefilling, backend.decoding) == (0, 1)
    assert backend.pending_prefill_tokens == 0
    dispatcher.presume_first_token("r", 0.2)
    assert (backend.prefilling, backend.decoding) == (0, 1)
    dispatcher.complete("r", 2.0, output_tokens=10)
    assert (backend.prefilling, backend.decoding, backend.in_flight) == (0, 0, 0)
    assert recorder.outcomes[0].first_token_s is None


def test_a_token_that_is_seen_after_all_counts_once() -> None:
    recorder = Recorder()
    dispatcher = make_dispatcher("a", observers=[recorder])
    (backend,) = dispatcher.state.backends
    dispatcher.dispatch(ask("r"), 0.0)
    dispatcher.presume_first_token("r", 0.1)
    dispatcher.first_token("r", 0.3)
    assert (backend.prefilling, backend.decoding) == (0, 1)
    dispatcher.complete("r", 2.0, output_tokens=10)
    assert recorder.outcomes[0].first_token_s == 0.3


def test_the_log_replays_it() -> None:
    lines: list[bytes] = []
    config = load_config({"backends": [{"gpu": "a100-80", "model": MODEL, "count": 2}]})
    dispatcher = build_dispatcher(config, log=lines.append)
    for n in range(6):
        dispatcher.dispatch(ask(f"r{n}"), 0.1 * n)
        dispatcher.presume_first_token(f"r{n}", 0.1 * n + 0.05)
    assert replay(iter(lines), rebuild_dispatcher) == 12
