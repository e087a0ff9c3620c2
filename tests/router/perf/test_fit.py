"""Fitting: known constants are found again, bounds and priors hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from router.domain.errors import BadInputError
from router.perf.catalog import default_catalog, gpu
from router.perf.fit import BOUNDS, fit_priors
from router.perf.measurements import (
    Measurement,
    Setup,
    Term,
    loaded_decode_terms,
    predict,
    prefill_terms,
    relative_errors,
)
from router.perf.priors import PRIOR_NAMES, Priors, priors_for

from .conftest import backend

KNOWN = default_catalog()
SETUP = Setup("a100-40", "llama-3.1-8b", "vllm")
START = priors_for(backend("a100-40"), gpu("a100-40"))
FREE = ("mfu", "mbu", "mbu_kv", "seq_us")


def measured(truth: Priors, noise: float = 0.0) -> list[Measurement]:
    """Iterations timed on an engine whose constants are ``truth``."""
    terms = [Term(n, 0, 0.0, n * n / 2) for n in (64, 256, 1024, 4096)]
    terms += [Term(0, b, b * c) for b in (1, 4, 16, 64, 256) for c in (100, 1000, 4000)]
    rows = [Measurement(SETUP, "mixed", (term,), 1.0) for term in terms]
    factors = 1 + noise * np.random.default_rng(5).standard_normal(len(rows))
    times = predict(rows, truth, KNOWN) * factors
    return [replace(row, time_s=float(t)) for row, t in zip(rows, times, strict=True)]


def test_the_constants_that_made_the_data_are_found():
    truth = replace(START, mfu=0.45, mbu=0.6, mbu_kv=0.5, seq_us=80.0)
    fit = fit_priors(measured(truth), START, FREE, KNOWN)
    for name in FREE:
        assert getattr(fit.priors, name) == pytest.approx(getattr(truth, name), rel=1e-3)
    assert fit.at_bound == ()


def test_outliers_hardly_move_the_fit():
    truth = replace(START, mfu=0.45)
    rows = measured(truth, noise=0.01)
    rows[2] = replace(rows[2], time_s=rows[2].time_s * 5)
    assert fit_priors(rows, START, FREE, KNOWN).priors.mfu == pytest.approx(0.45, rel=0.10)


def test_constants_not_asked_for_stay():
    fit = fit_priors(measured(replace(START, mfu=0.3)), START, ("mbu",), KNOWN)
    assert replace(fit.priors, mbu=START.mbu) == START


def test_what_the_data_do_not_speak_of_stays_at_the_prior():
    decode_only = [m for m in measured(replace(START, mbu=0.5)) if not m.terms[0].prefill_tokens]
    shallow = [m for m in decode_only if m.terms[0].decode_seqs == 1]
    fit = fit_priors(shallow, START, ("mbu", "mfu"), KNOWN, prior_strength=1.0)
    assert fit.priors.mfu == pytest.approx(START.mfu, rel=0.05)
    assert fit.priors.mbu < 0.9 * START.mbu


def test_an_impossible_speed_ends_on_the_bound_and_says_so():
    too_fast = [replace(m, time_s=m.time_s / 3) for m in measured(START)]
    fit = fit_priors(too_fast, START, ("mbu",), KNOWN)
    assert fit.priors.mbu == pytest.approx(BOUNDS["mbu"][1])
    assert fit.at_bound == ("mbu",)


def test_nothing_to_fit_to_is_refused():
    with pytest.raises(BadInputError, match="no measurements"):
        fit_priors([], START, FREE, KNOWN)


def test_bounds_are_of_constants_that_exist():
    assert set(BOUNDS) < PRIOR_NAMES


def test_several_setups_share_the_constants():
    other = replace(SETUP, model="llama-2-7b")
    rows = measured(START) + [replace(m, setup=other) for m in measured(START)]
    errors = relative_errors(rows, START, KNOWN)
    half = len(rows) // 2
    assert errors[:half] == pytest.approx(0.0, abs=1e-12)
    assert abs(errors[half:]).max() > 0.1  # another model: other times


def test_a_prompt_longer_than_the_budget_takes_several_iterations():
    terms = prefill_terms(5000, 2048)
    assert [t.prefill_tokens for t in terms] == [2048, 2048, 904]
    # chunking does not change the attention work of the whole prompt: n^2 / 2
    assert sum(t.prefill_pairs for t in terms) == 5000**2 / 2


def test_tpot_alone_is_one_decode_step_and_under_load_holds_the_others_prefills():
    assert loaded_decode_terms(1, 100, 50) == (Term(0, 1, 125.0),)
    decode, mixed = loaded_decode_terms(11, 100, 50)
    assert decode.weight + mixed.weight == 1.0
    assert mixed.weight * 50 == 10  # each of ten others starts once per answer of 50 tokens


def test_the_head_is_left_out_where_it_was_not_measured():
    whole = Measurement(SETUP, "decode", (Term(0, 1, 0.0),), 1.0)
    blocks = replace(whole, setup=replace(SETUP, blocks_only=True))
    with_head, without = predict([whole, blocks], replace(START, step_us=0.0, seq_us=0.0), KNOWN)
    head_s = 128_256 * 4096 * 2 / (1555e9 * START.mbu)
    assert with_head - without == pytest.approx(head_s, rel=0.01)
