"""Who may use what: context, quality, latency targets, and the columns worth having."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.domain.errors import InfeasiblePlanError, WorkloadError
from router.domain.slo import Slo
from solver.assemble import build_problem
from solver.options import Limits
from solver.problem import Problem
from solver.stock import stock_of
from solver.unmet import in_words
from tests.solver.tiny import MODEL, backends, demand, fleet, linear_model, work

TARGETS = {
    "bulk": Slo("bulk"),
    "fast": Slo("fast", tpot_s=0.085),
    "absurd": Slo("absurd", ttft_s=0.001),
}
MIXED = fleet(backends("a100-80", 1), backends("t4", 1, tensor_parallel=2))


def _built(*classes: object, limits: Limits | None = None, **fields: object) -> Problem:
    chosen = limits or Limits(slos=TARGETS)
    return build_problem(demand(*classes), stock_of(MIXED), chosen, **fields)  # type: ignore[arg-type]


def _who(problem: Problem, index: int) -> set[tuple[str, float]]:
    """(GPU, ceiling) of every column that a class may use."""
    return {
        (problem.bases[problem.columns[j].base].spec.gpu, problem.columns[j].ceiling)
        for c, j in zip(problem.edge_class, problem.edge_column, strict=True)
        if c == index
    }


def test_without_targets_one_column_per_engine_is_enough() -> None:
    found = _built(work())
    assert _who(found, 0) == {("a100-80", 0.85), ("t4", 0.85)}
    assert len(found.columns) == 2


def test_a_target_that_holds_only_lightly_loaded_adds_a_lower_ceiling() -> None:
    found = _built(work(), work(slo="fast"))
    assert _who(found, 1) == {("a100-80", 0.85), ("t4", 0.3)}
    assert _who(found, 0) == {("a100-80", 0.85), ("t4", 0.85), ("t4", 0.3)}


def test_every_column_admits_somebody_whom_a_higher_one_does_not() -> None:
    found = _built(work(), work(slo="fast"))
    for gpu in ("a100-80", "t4"):
        admitted: set[int] = set()
        mine = [
            (column.ceiling, j)
            for j, column in enumerate(found.columns)
            if found.bases[column.base].spec.gpu == gpu
        ]
        for _, j in sorted(mine, reverse=True):
            able = set(found.edge_class[found.edge_column == j].tolist())
            assert able - admitted
            admitted |= able


def test_routing_has_one_column_per_engine() -> None:
    found = _built(work(), work(slo="fast"), tiered=False)
    assert len(found.columns) == 2
    assert len(_who(found, 1)) == 2


def test_a_target_nobody_meets_is_relaxed_for_the_best_and_noted() -> None:
    found = _built(work(slo="absurd"))
    assert {gpu for gpu, _ in _who(found, 0)} == {"a100-80"}
    assert "no engine meets the ttft target" in str(found.relaxed[0])
    assert "a100-80" in str(found.relaxed[0])


def test_strict_targets_are_not_relaxed() -> None:
    with pytest.raises(InfeasiblePlanError, match="no engine meets the ttft target"):
        _built(work(slo="absurd"), limits=Limits(slos=TARGETS, strict_slo=True))


def test_a_target_that_many_classes_miss_is_told_once_with_the_worst() -> None:
    problem = _built(work(slo="absurd", prompt=500), work(slo="absurd", prompt=5000))
    (sentence,) = in_words(problem.relaxed.values())
    assert "target of 2 classes" in sentence
    worst = max(problem.relaxed.values(), key=lambda one: one.factor)
    assert f"{worst.factor:.2f} even lightly loaded (most of all {worst.work})" in sentence


def test_a_context_that_does_not_fit_is_refused_with_both_numbers() -> None:
    found = _built(work(longest=100_000))
    assert {gpu for gpu, _ in _who(found, 0)} == {"a100-80"}
    (reason,) = found.refusals[0]
    assert "100000 tokens" in reason
    assert "t4" in reason


def test_a_class_beyond_every_context_is_an_orphan() -> None:
    assert _built(work(longest=500_000)).orphans() == [0]
    assert _built(work(0.0, longest=500_000)).orphans() == []


def test_a_quality_floor_keeps_quantized_weights_away() -> None:
    quantized = fleet(backends("a100-80", 1), backends("a100-80", 1, quantization="awq"))
    limits = Limits(quality={"awq": 0.97}, quality_floor={"interactive": 0.99})
    found = build_problem(
        demand(work(slo="interactive"), work(slo="bulk")), stock_of(quantized), limits
    )
    formats = {
        (int(c), found.bases[found.columns[j].base].spec.quantization)
        for c, j in zip(found.edge_class, found.edge_column, strict=True)
    }
    assert formats == {(0, ""), (1, ""), (1, "awq")}
    assert "below the floor of 0.99" in found.refusals[0][0]


def test_an_unmeasured_format_passes_the_floor() -> None:
    quantized = fleet(backends("a100-80", 1, quantization="awq"))
    limits = Limits(quality_floor={"interactive": 0.99})
    found = build_problem(demand(work(slo="interactive")), stock_of(quantized), limits)
    assert found.refusals == {}


def test_beliefs_replace_the_catalogue() -> None:
    slow = linear_model(step_s=1.0)
    group = MIXED.backends[0].group
    believed = build_problem(demand(work()), stock_of(MIXED), Limits(), believed={group: slow})
    trusted = build_problem(demand(work()), stock_of(MIXED), Limits())
    at = [found.bases[column.base].group for found in (trusted,) for column in found.columns]
    j = at.index(group)
    assert believed.alone_s[believed.edge_column == j] > trusted.alone_s[trusted.edge_column == j]
    assert believed.alone_s[believed.edge_column == 1 - j] == pytest.approx(
        trusted.alone_s[trusted.edge_column == 1 - j]
    )


def test_prices_of_the_user_replace_the_catalogue() -> None:
    limits = Limits(prices_usd_per_hour={"t4": 10.0})
    found = build_problem(demand(work()), stock_of(MIXED), limits)
    dollars = {base.spec.gpu: base.usd_per_hour for base in found.bases}
    assert dollars["t4"] == 20.0
    assert dollars["a100-80"] == 3.67


def test_an_undefined_service_class_is_an_error_with_the_remedy() -> None:
    with pytest.raises(WorkloadError, match=r"unknown SLO class 'urgent'.*under 'slos'"):
        _built(replace(work(), slo_class="urgent"))


def test_a_model_with_targets_of_its_own_is_held_to_those() -> None:
    """Nobody answers within a microsecond; of this model nobody asks for that."""
    impossible = Slo("interactive", ttft_s=1e-6)
    own = replace(impossible, models={MODEL: Slo("interactive", ttft_s=10.0)})
    asked = demand(work(slo="interactive"))
    assert build_problem(asked, stock_of(MIXED), Limits(slos={"interactive": impossible})).relaxed
    limits = Limits(slos={"interactive": own})
    assert not build_problem(asked, stock_of(MIXED), limits).relaxed
