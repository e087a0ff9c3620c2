"""Cards in stock and what could be built from them."""

from __future__ import annotations

import pytest

from router.domain.errors import UnknownNameError, WorkloadError
from router.domain.fleet import Fleet
from router.perf.hardware import Hardware
from solver.options import Weights
from solver.plan import plan_stock
from solver.stock import Pool, placed_stock, pools_of, stock_of
from tests.solver.tiny import MODEL, backends, demand, fleet, work

HARDWARE = Hardware()


def test_cards_of_one_type_and_zone_form_a_pool() -> None:
    found = pools_of(
        fleet(
            backends("t4", 3, tensor_parallel=2),
            backends("t4", 1, tensor_parallel=2, zone="b"),
            backends("a100-80", 2),
        )
    )
    assert [(pool.name, pool.cards) for pool in found] == [("t4", 6), ("t4@b", 2), ("a100-80", 2)]


def test_engines_span_only_cards_that_are_known_to_be_linked() -> None:
    pool = Pool("a100-80", "", {1: 4, 4: 1})
    assert pool.sizes() == [1, 2, 4]
    assert [pool.slots(size) for size in (1, 2, 4)] == [8, 2, 1]


def test_candidates_are_what_runs_and_what_could() -> None:
    found = stock_of(fleet(backends("a100-80", 2)), {"llama-3.2-1b"})
    assert {one.spec.group: one.running for one in found.candidates} == {
        f"a100-80/vllm/{MODEL}": 2,
        "a100-80/vllm/llama-3.2-1b": 0,
    }


def test_what_cannot_run_is_refused_with_its_reason() -> None:
    found = stock_of(fleet(backends("t4", 2, tensor_parallel=2)))
    assert [one.spec.group for one in found.candidates] == [f"t4x2/vllm/{MODEL}"]
    assert "does not fit" in found.refused[f"t4/vllm/{MODEL}"]


def test_engines_stay_on_cards_that_run_them() -> None:
    """SGLang elsewhere in the fleet does not make it an option for a V100."""
    found = stock_of(fleet(backends("v100-32", 1), backends("a100-80", 1, engine="sglang")))
    assert sorted(one.spec.engine for one in found.candidates) == ["sglang", "vllm"]


def test_weight_formats_of_a_model_are_tried_on_every_pool() -> None:
    found = stock_of(fleet(backends("a100-80", 1), backends("l4", 1, quantization="awq")))
    groups = {one.spec.group for one in found.candidates}
    assert f"a100-80/vllm/{MODEL}:awq" in groups
    assert f"l4/vllm/{MODEL}" in groups


def test_measured_figures_stay_with_the_engine_they_were_measured_on() -> None:
    measured = backends("a100-80", 1, kv_capacity_tokens=123_456, max_num_seqs=7)
    found = stock_of(fleet(measured), {"llama-3.2-1b"})
    by_model = {one.spec.model: one.spec for one in found.candidates}
    assert by_model[MODEL].kv_capacity_tokens == 123_456
    assert by_model["llama-3.2-1b"].kv_capacity_tokens is None
    assert by_model["llama-3.2-1b"].max_num_seqs is None


def test_when_serving_only_what_runs_is_a_candidate() -> None:
    found = stock_of(fleet(backends("a100-80", 2)), {"llama-3.2-1b"}, movable=False)
    assert [one.spec.model for one in found.candidates] == [MODEL]


def test_no_cards_is_an_error() -> None:
    with pytest.raises(WorkloadError, match="no cards"):
        stock_of(Fleet(()))


def test_a_model_in_no_catalogue_is_an_error_that_suggests() -> None:
    with pytest.raises(UnknownNameError, match=r"llama-3\.1-8b"):
        stock_of(fleet(backends("a100-80", 1)), {"llama-3.1-8c"})


def test_engines_that_exist_are_the_limit_not_the_cards() -> None:
    """Two cards, one engine of the small model: the plan has at most one of it."""
    small = "llama-3.2-3b"
    running = backends("a100-80", 2)
    (asleep,) = backends("a100-80", 1, model=small)
    stock = placed_stock(pools_of(fleet(running)), running, [asleep], HARDWARE)
    assert [(c.spec.model, c.running, c.most) for c in stock.candidates] == [
        (MODEL, 2, 2),
        (small, 0, 1),
    ]
    found = plan_stock(demand(work(0.1), work(30.0, model=small)), stock, Weights(cost=0.0))
    assert {one.model: one.replicas for one in found.replicas} == {MODEL: 1, small: 1}


def test_an_engine_on_cards_of_no_pool_is_named() -> None:
    with pytest.raises(WorkloadError, match=r"t4, which planner\.placement\.stock does not list"):
        placed_stock(
            pools_of(fleet(backends("a100-80", 1))),
            backends("t4", 1, tensor_parallel=2),
            [],
            HARDWARE,
        )
