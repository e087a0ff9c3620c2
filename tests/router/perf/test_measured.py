"""An iteration measured on a live engine replaces what the catalogue says."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.domain.errors import ConfigError
from router.perf.build import iteration_model
from router.perf.measured import MeasuredCost, measured_cost
from router.perf.overrides import dump_overrides, load_overrides
from router.perf.priors import Override, priors_for

from .conftest import backend

LINE = {"step_s": 0.02, "prefill_s": 3e-4, "seq_s": 1e-3, "context_s": 2e-7, "pair_s": 1e-8}
T4 = backend("t4")


def test_every_kind_of_work_is_paid_by_the_piece():
    model = MeasuredCost(**LINE).iteration_model()
    expected = 0.02 + 100 * 3e-4 + 4 * 1e-3 + 5_000 * 2e-7 + 2_500 * 1e-8
    assert model.iteration_s(100, 4, 5_000, 2_500) == pytest.approx(expected)


def test_with_a_knee_it_is_the_roofline():
    model = MeasuredCost(**LINE, knee_tokens=100.0).iteration_model()
    weights_s, far_beyond = 100 * 3e-4, 1_000_000
    alone = model.iteration_s(0, 1, 0)
    assert alone == pytest.approx(0.02 + 1e-3 + weights_s, rel=0.01)  # the weights are read
    beyond = model.iteration_s(far_beyond, 0, 0)
    assert beyond == pytest.approx(0.02 + far_beyond * 3e-4, rel=0.01)  # and all is computed
    # A decoding sequence multiplies as many weights as a prompt token.
    assert model.iteration_s(0, 64, 0) - 64e-3 == pytest.approx(model.iteration_s(64, 0, 0))


def test_the_api_is_no_part_of_an_iteration():
    slow_api = measured_cost(LINE | {"api_s": 9.0})
    assert slow_api is not None
    assert slow_api.iteration_model() == MeasuredCost(**LINE).iteration_model()


def test_it_beats_the_constants_whatever_their_order():
    line, constants = Override(LINE, gpu="t4"), Override({"mbu": 0.3}, gpu="t4")
    expected = MeasuredCost(**LINE).iteration_model()
    assert iteration_model(T4, overrides=[line, constants]) == expected
    assert iteration_model(T4, overrides=[constants, line]) == expected


def test_the_last_measurement_wins_and_other_cards_keep_theirs():
    newer = LINE | {"step_s": 0.5}
    overrides = [Override(LINE, gpu="t4"), Override(newer, gpu="t4")]
    assert iteration_model(T4, overrides=overrides).step_s == 0.5
    l4 = backend("l4")
    assert iteration_model(l4, overrides=overrides) == iteration_model(l4)


def test_a_factor_per_phase_still_applies():
    overrides = [Override(LINE), Override({"decode_factor": 2.0})]
    model = iteration_model(T4, overrides=overrides)
    assert model.iteration_s(0, 3, 1_000) == pytest.approx(2 * (0.02 + 3e-3 + 2e-4))


def test_it_survives_the_file(tmp_path: Path):
    file = tmp_path / "o.yaml"
    file.write_text(dump_overrides([Override(LINE, "t4", "vllm")], "measured"))
    assert load_overrides(file) == (Override(LINE, "t4", "vllm"),)


def test_constants_beside_it_reach_the_priors():
    from router.perf.catalog import gpu

    both = Override(LINE | {"mfu": 0.2})
    assert priors_for(T4, gpu("t4"), [both]).mfu == 0.2


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"step_s": 0.1}, "prefill_s, seq_s, context_s"),
        (LINE | {"seq_s": -1e-9}, "seq_s must be 0 or more"),
        (LINE | {"prefill_s": float("nan")}, "prefill_s must be 0 or more"),
        (LINE | {"step_s": 0.0}, "no iteration is free"),
    ],
)
def test_half_a_line_or_an_impossible_one_is_refused(values: dict[str, float], named: str):
    with pytest.raises(ConfigError, match=named):
        Override(values)
