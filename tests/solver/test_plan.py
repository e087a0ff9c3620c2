"""From demand and fleet to a plan: the contract of its JSON, its tables and its errors."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from router.domain.errors import InfeasiblePlanError, SolverError, UnknownNameError, WorkloadError
from solver.answer import Plan
from solver.options import Limits, Weights
from solver.plan import plan
from solver.render import common, render
from tests.solver.tiny import MODEL, backends, demand, fleet, work

MIXED = fleet(backends("a100-80", 2), backends("v100-32", 1), backends("t4", 2, tensor_parallel=2))
TRAFFIC = demand(
    work(4.0, slo="interactive"), work(1.0, prompt=3000, slo="bulk"), work(0.0, prompt=9000)
)


@pytest.fixture(scope="module")
def found() -> Plan:
    return plan(TRAFFIC, MIXED)


def test_the_json_is_the_contract(found: Plan) -> None:
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert list(document) == [
        "status",
        "objective",
        "replicas",
        "shares",
        "prices",
        "cost_usd_per_hour",
        "solve_s",
    ]
    assert document["status"] == "optimal"
    assert {"class", "group", "share"} == set(document["shares"][0])
    assert {"group", "price"} == set(document["prices"][0])
    assert {"group", "replicas", "running", "cards"} <= set(document["replicas"][0])


def test_shares_of_every_class_with_demand_add_up_to_one(found: Plan) -> None:
    """I7."""
    names = {share.work_class for share in found.shares}
    assert names == {one.name for one in TRAFFIC.classes if one.rate_per_s > 0}
    for name in names:
        assert sum(found.share_of(name).values()) == pytest.approx(1.0, abs=1e-6)


def test_replicas_stay_within_the_cards(found: Plan) -> None:
    cards = {"a100-80": 2, "v100-32": 1, "t4": 4}
    for one in found.replicas:
        cards[one.gpu] -= one.cards
        assert 0 <= one.utilization <= 0.85 + 1e-6
    assert min(cards.values()) >= 0


def test_the_cost_is_that_of_the_replicas(found: Plan) -> None:
    assert found.cost_usd_per_hour == pytest.approx(sum(one.usd_per_hour for one in found.replicas))


def test_groups_with_replicas_have_a_price(found: Plan) -> None:
    assert {one.group for one in found.prices} == {
        one.group for one in found.replicas if one.replicas
    }
    assert all(price.price >= 0 for price in found.prices)


def test_turning_away_must_be_allowed() -> None:
    small = fleet(backends("t4", 1, tensor_parallel=2))
    with pytest.raises(InfeasiblePlanError, match="allow-unserved"):
        plan(demand(work(50.0)), small)
    found = plan(demand(work(50.0)), small, limits=Limits(allow_unserved=True))
    assert found.status == "overloaded"
    away = found.share_of(found.shares[0].work_class)[None]
    assert 0 < away < 1
    assert sum(found.share_of(found.shares[0].work_class).values()) == pytest.approx(1.0)
    assert any("turned away" in note for note in found.notes)


def test_a_tenant_is_not_starved_when_fairness_counts() -> None:
    """Short requests are cheap to serve, so without fairness the long ones go first."""
    small = fleet(backends("t4", 1, tensor_parallel=2))
    crowd = demand(work(20.0, prompt=200, tenant="a"), work(20.0, prompt=2000, tenant="b"))
    limits = Limits(allow_unserved=True)

    def worst(fairness: float) -> float:
        found = plan(crowd, small, Weights(fairness=fairness, unserved=100.0), limits)
        return max(found.share_of(one.name).get(None, 0.0) for one in crowd.classes)

    assert worst(1e6) < worst(0.0) - 0.01


@pytest.mark.parametrize(
    ("weights", "error", "complaint"),
    [
        ({"cost": "dear"}, WorkloadError, "'cost' must be a number, not 'dear'"),
        ({"cost": True}, WorkloadError, "must be a number"),
        ({"cost": -1.0}, WorkloadError, "not negative"),
        ({"cost": float("nan")}, WorkloadError, "finite"),
        ({"costs": 1.0}, UnknownNameError, "Did you mean 'cost'"),
    ],
)
def test_senseless_weights_are_named(
    weights: dict[str, object], error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        plan(TRAFFIC, MIXED, weights)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"budget_usd_per_hour": 0.0}, "budget must be more than 0"),
        ({"min_replicas": -1}, "min_replicas"),
        ({"max_zone_share": 0.0}, "max_zone_share"),
        ({"ceilings": (0.5, 1.0)}, "ceilings"),
        ({"ceilings": ()}, "ceilings"),
        ({"time_limit_s": 0.0}, "time limit"),
        ({"prices_usd_per_hour": {"t4": -1.0}}, "price of t4"),
    ],
)
def test_senseless_limits_are_named(fields: dict[str, object], complaint: str) -> None:
    with pytest.raises(WorkloadError, match=complaint):
        Limits(**fields)  # type: ignore[arg-type]


def test_the_tables_show_replicas_shares_and_prices(found: Plan) -> None:
    console = Console(width=120, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    console.print(render(found))
    text = console.export_text()
    for one in found.replicas:
        assert one.group in text
    assert "$/h" in text
    assert "100%" in text


@pytest.mark.parametrize("width", [80, 200])
def test_no_name_is_broken_or_cut_off_however_many_groups_there_are(width: int) -> None:
    kinds = ("a10g", "a40", "h100", "l4", "l40s", "v100-32")
    others = [backends(gpu, 1, engine="sglang") for gpu in ("a100-40", "a100-80")]
    many = fleet(*others, *(backends(gpu, 1) for gpu in kinds))
    mixed = [work(4.0, prompt=prompt, output=out) for prompt in (90, 3000) for out in (30, 900)]
    found = plan(demand(*mixed), many, limits=Limits(min_replicas=8))
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(render(found))
    lines = console.export_text().splitlines()
    words = {word.strip(",") for line in lines for word in line.split()}
    assert {one.group for one in found.replicas} <= words
    used = {share.group.removesuffix(f"/{MODEL}") for share in found.shares if share.group}
    assert len(used) > 2
    assert used <= words
    assert {"utilization", "price", "s/s"} <= words
    assert not any("…" in line for line in lines)
    assert any("goes to" in line for line in lines) == (width == 80)


def test_what_all_names_share_is_said_once() -> None:
    assert common(["m/fast/in<=1", "m/fast/in<=2"]) == (["in<=1", "in<=2"], "m/fast")
    assert common([f"t4/vllm/{MODEL}", f"l4/vllm/{MODEL}"]) == (["t4", "l4"], f"vllm/{MODEL}")
    assert common(["one/name"]) == (["one/name"], "")
    assert common(["a/b", "a/b/c"]) == (["a/b", "a/b/c"], "")


def test_the_files_weights_are_the_planners(monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration checks names without importing the planner; both lists must agree."""
    from dataclasses import fields

    from router.config.planner import WEIGHTS

    assert tuple(spec.name for spec in fields(Weights)) == WEIGHTS


def test_without_cvxpy_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "solver.model", None)
    with pytest.raises(SolverError, match="pip install cvxpy"):
        plan(demand(work(1.0)), fleet(backends("a100-80", 1)))
