"""A probe of an emulated engine finds what the emulator was told, over HTTP, in virtual time."""

import pytest

from router.perf.build import iteration_model
from router.perf.measured import MeasuredCost
from simulator.engine_server.build import EngineOptions
from simulator.live.facts import BusyEngineError
from simulator.live.probe import ProbeOptions
from simulator.live.prompts import random_prompt
from simulator.live.session import Target, measure
from simulator.live.setup import Named
from simulator.live.stream import AnswerError

from .virtual import emulated, run_virtually, with_client

NETWORK_S = 0.004
QUICK = ProbeOptions(seconds=40.0, max_rounds=1)
GRID = [
    (0, 1, 500),
    (0, 8, 8_000),
    (0, 16, 16_000),
    (64, 4, 2_000),
    (512, 0, 0),
    (1_024, 8, 4_000),
    (2_048, 0, 0),
]


def ignore(share, what):
    """Nobody watches."""


def probe(spec, options=QUICK, *, force=False):
    target = Target(Named(spec.gpu, spec.tensor_parallel), force=force)
    return run_virtually(
        with_client(spec, lambda c: measure(c, target, options, ignore), delay_s=NETWORK_S)
    )


@pytest.mark.parametrize(
    ("gpu", "engine", "fields"),
    [
        ("a100-80", "vllm", {}),
        ("a100-80", "sglang", {}),
        ("l4", "vllm", {}),
        ("v100-32", "vllm", {"max_model_len": 8_192}),
        ("t4", "vllm", {"tensor_parallel": 2}),
    ],
)
def test_the_truth_of_the_emulator_is_found_within_two_percent(gpu, engine, fields):
    spec = emulated(gpu, engine, **fields)
    truth, found = iteration_model(spec), probe(spec).fit.cost
    model = found.iteration_model()
    for prompt, seqs, context in GRID:
        expected = truth.iteration_s(prompt, seqs, context, prompt**2 / 2)
        actual = model.iteration_s(prompt, seqs, context, prompt**2 / 2)
        assert actual == pytest.approx(expected, rel=0.02), (prompt, seqs, context)
    assert found.context_s == pytest.approx(truth.context_s, rel=0.05)
    assert found.api_s == pytest.approx(2 * NETWORK_S, rel=0.1)


def test_what_is_held_back_is_predicted_as_well_as_what_is_fitted():
    fit = probe(emulated()).fit
    assert set(fit.held_back) == {"prefill", "decode", "mixed"}
    assert max(errors.median for errors in fit.held_back.values()) < 1.0


def test_the_same_seed_asks_the_same_in_the_same_order():
    first, second = probe(emulated()), probe(emulated())
    assert first.probe.observations == second.probe.observations
    assert first.fit == second.fit


def test_it_goes_on_in_rounds_until_the_time_is_up():
    quick = probe(emulated(), ProbeOptions(seconds=30.0))
    thorough = probe(emulated(), ProbeOptions(seconds=90.0, max_rounds=3))
    assert quick.probe.wall_s < 40.0
    assert quick.probe.rounds < thorough.probe.rounds == 3
    assert len(thorough.probe.observations) == 3 * thorough.probe.shapes


async def occupied(client, target):
    """Measure while another client is being served."""
    import asyncio

    import numpy as np

    client.model = "llama-3.1-8b"
    other = asyncio.ensure_future(
        client.complete(random_prompt(50, np.random.default_rng(0)), 10_000)
    )
    await asyncio.sleep(1.0)
    try:
        return await measure(client, target, QUICK, ignore)
    finally:
        other.cancel()


def test_a_busy_engine_is_left_alone():
    target = Target(Named("a100-80"))
    with pytest.raises(BusyEngineError, match="busy with 1 request"):
        run_virtually(with_client(emulated(), lambda c: occupied(c, target)))


def test_unless_it_is_forced_and_then_the_result_says_so():
    target = Target(Named("a100-80"), force=True)
    measured = run_virtually(with_client(emulated(), lambda c: occupied(c, target)))
    assert isinstance(measured.fit.cost, MeasuredCost)
    assert measured.disturbed


def test_an_engine_that_refuses_everything_says_why():
    full = EngineOptions(max_queued=0)
    target = Target(Named("a100-80"))
    with pytest.raises(AnswerError, match="503"):
        run_virtually(
            with_client(
                emulated(max_num_seqs=1), lambda c: measure(c, target, QUICK, ignore), options=full
            )
        )
