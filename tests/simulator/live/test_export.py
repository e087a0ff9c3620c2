"""What was measured, as fleet files take it."""

import pytest

from router.domain.errors import ConfigError
from router.perf.build import iteration_model
from router.perf.overrides import dump_overrides, load_overrides
from simulator.live.export import constants_of, cost_from, override_of
from simulator.live.probe import ProbeOptions
from simulator.live.session import Target, measure
from simulator.live.setup import CPU, Named

from .virtual import MODEL, emulated, run_virtually, with_client


def probe(gpu="a100-80", named=None):
    options = ProbeOptions(seconds=40.0, max_rounds=1)
    target = Target(Named(named or gpu))
    return run_virtually(
        with_client(emulated(gpu), lambda c: measure(c, target, options, lambda share, what: None))
    )


@pytest.fixture(scope="module")
def measured():
    return probe()


def test_the_measured_iteration_is_for_this_engine_only(measured, tmp_path):
    override = override_of(measured)
    assert (override.gpu, override.engine, override.model) == ("a100-80", "vllm", MODEL)
    file = tmp_path / "o.yaml"
    file.write_text(dump_overrides([override]))
    found = cost_from(file, measured.setup)
    # Written with five digits.
    assert found.prefill_s == pytest.approx(measured.fit.cost.prefill_s, rel=1e-4)
    truth = iteration_model(emulated())
    model = iteration_model(measured.setup.spec, overrides=load_overrides(file))
    assert model.iteration_s(64, 8, 4_000) == pytest.approx(truth.iteration_s(64, 8, 4_000), 0.02)


def test_a_file_for_another_engine_is_refused(measured, tmp_path):
    file = tmp_path / "o.yaml"
    file.write_text("overrides:\n  - {gpu: t4, mfu: 0.3}\n")
    with pytest.raises(ConfigError, match="no measured iteration for gpu: a100-80, engine: vllm"):
        cost_from(file, measured.setup)


def test_the_cards_constants_explain_the_same_observations(measured):
    # The emulator has the catalogue's own constants, so the fit must stay where it starts.
    result = constants_of(measured)
    assert result.after < 1.0
    priors = iteration_model(emulated())
    fitted = iteration_model(emulated(), overrides=[result.override])
    for prompt, seqs in ((0, 1), (0, 16), (1_024, 0)):
        expected = priors.iteration_s(prompt, seqs, 100 * seqs, prompt**2 / 2)
        actual = fitted.iteration_s(prompt, seqs, 100 * seqs, prompt**2 / 2)
        assert actual == pytest.approx(expected, rel=0.02)


def test_a_machine_without_a_card_has_no_constants():
    with pytest.raises(ConfigError, match="leave out --form constants"):
        constants_of(probe(named=CPU))
