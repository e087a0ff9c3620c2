"""``motley plan`` from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from router.cli.main import run
from router.cli.plan_demand import parse_weights
from router.domain.errors import WorkloadError

FLEET = """
backends:
  - {gpu: a100-80, count: 2, engine: sglang, model: llama-3.1-8b}
  - {gpu: t4, count: 2, tensor_parallel: 2, model: llama-3.1-8b}
aliases: {chat: llama-3.1-8b}
slos: {urgent: {ttft_s: 1.0}}
"""
CSV = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2023-11-16 18:15:{second:02d}.0000000,{400 + 10 * second},{40 + second}\n"
    for second in range(60)
)


@pytest.fixture
def trace(tmp_path: Path) -> str:
    path = tmp_path / "trace.csv"
    path.write_text(CSV)
    return str(path)


@pytest.fixture
def asked(fleet: str, trace: str) -> list[str]:
    return ["plan", "--workload", trace, "--fleet", fleet]


def _json(
    capsys: pytest.CaptureFixture[str], *arguments: str
) -> dict[str, list[dict[str, object]]]:
    assert run(["plan", *arguments, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_a_table_for_people(fleet: str, trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--workload", trace, "--fleet", fleet]) == 0
    said = capsys.readouterr().out
    for word in ("optimal plan", "Replicas and prices", "Shares", "$/h", "a100-80"):
        assert word in said


def test_json_for_programs(fleet: str, trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = _json(capsys, "--workload", trace, "--fleet", fleet)
    assert set(found) == {
        "status",
        "objective",
        "replicas",
        "shares",
        "prices",
        "cost_usd_per_hour",
        "solve_s",
    }
    totals: dict[object, float] = {}
    for share in found["shares"]:
        totals[share["class"]] = totals.get(share["class"], 0.0) + float(str(share["share"]))
    assert list(totals.values()) == pytest.approx([1.0] * len(totals))


def test_json_into_a_file_keeps_stdout_quiet(
    fleet: str, trace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.json"
    assert run(["plan", "--workload", trace, "--fleet", fleet, "--json", str(path)]) == 0
    assert capsys.readouterr().out == ""
    assert json.loads(path.read_text())["status"] == "optimal"


def test_a_built_in_workload_needs_no_file(fleet: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--workload", "azure-code-like", "--fleet", fleet, "--duration", "900")
    assert _json(capsys, *arguments)["shares"]


def test_rate_scale_raises_the_prices(
    fleet: str, trace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def dearest(scale: str) -> float:
        found = _json(capsys, "--workload", trace, "--fleet", fleet, "--rate-scale", scale)
        return max(float(str(one["price"])) for one in found["prices"])

    assert dearest("10") > dearest("1")


def test_aliases_are_the_models_they_stand_for(
    fleet: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "named.jsonl"
    lines = [
        {"arrival_s": n, "input_tokens": 100, "output_tokens": 50, "model": name, "tenant": name}
        for n, name in enumerate(["chat", "llama-3.1-8b", "chat"])
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    found = _json(capsys, "--workload", str(path), "--fleet", fleet, "--format", "jsonl")
    assert {one["class"] for one in found["shares"]} == {
        "llama-3.1-8b/interactive/in<=128/out<=128"
    }
    apart = _json(
        capsys, "--workload", str(path), "--fleet", fleet, "--format", "jsonl", "--by-tenant"
    )
    assert len({one["class"] for one in apart["shares"]}) == 2


def test_service_classes_of_the_file_are_known(
    fleet: str, trace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _json(capsys, "--workload", trace, "--fleet", fleet, "--classes", "urgent=1")
    assert all("/urgent/" in str(one["class"]) for one in found["shares"])


@pytest.mark.parametrize(
    ("more", "code", "complaint"),
    [
        (["--weights", "cost=dear"], 2, "--weights: 'cost=dear' must be a number"),
        (["--weights", "cost"], 2, "name=number"),
        (["--weights", "costs=1"], 2, "Did you mean 'cost'"),
        (["--weights", "cost=-1"], 2, "not negative"),
        (["--rate-scale", "-1"], 2, "scale"),
        (["--classes", "unheard=1"], 2, "unknown SLO class 'unheard'"),
        (["--model", "llama-9"], 2, "unknown model 'llama-9'"),
        (["--budget", "0"], 2, "budget"),
        (["--max-moves", "-1"], 2, "max_moves must be 0 or more"),
        (["--hysteresis", "nan"], 2, "hysteresis must be a share"),
        (["--gap", "-1"], 2, "mip_gap must be a share"),
        (["--seed", "-1"], 2, "a seed must be 0 or more"),
        (["--buy", "--worth"], 2, "give one of them"),
        (["--offers", "prices.yaml"], 2, "--buy, which is not given"),
        (["--budget", "0.1"], 1, "a budget of 1.05 $/h instead of 0.10"),
        (["--min-replicas", "9"], 1, "instead of 9"),
        (["--rate-scale", "900"], 1, "more a100-80"),
        (["--json", "/no/such/folder/plan.json"], 2, "the folder '/no/such/folder' does not exist"),
        (["--min-replicas", "9", "--json", "/"], 2, "/: is a folder"),  # told before the work
    ],
)
def test_mistakes_are_one_line_with_a_remedy(
    asked: list[str],
    more: list[str],
    code: int,
    complaint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run([*asked, *more]) == code
    told = capsys.readouterr()
    assert told.err.startswith("error: ")
    assert complaint in told.err
    assert "Traceback" not in told.err
    assert told.out == ""


def test_a_workload_that_is_not_there_is_named(
    fleet: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", "--workload", "/no/such.csv", "--fleet", fleet]) == 2
    assert "/no/such.csv" in capsys.readouterr().err


def test_a_malformed_line_is_counted_or_stops_it(
    fleet: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(CSV + "2023-11-16 18:17:00.0000000,many,1\n")
    assert run(["plan", "--workload", str(path), "--fleet", fleet, "--json", "-"]) == 0
    told = capsys.readouterr()
    assert "1 malformed line" in told.err
    assert json.loads(told.out)["status"] == "optimal"
    assert run(["plan", "--workload", str(path), "--fleet", fleet, "--strict"]) == 2
    assert ":62:" in capsys.readouterr().err


def test_weights_are_read_by_name() -> None:
    assert parse_weights(" cost=0.1, energy=2 ") == {"cost": 0.1, "energy": 2.0}
    assert parse_weights("") == {}
    with pytest.raises(WorkloadError):
        parse_weights("cost=a=b")


def test_help_does_not_wait_for_the_solver() -> None:
    """CVXPY takes seconds to import; only planning may pay for it."""
    script = (
        "import sys; from router.cli.main import run; run(['plan', '--help']); "
        "sys.exit('cvxpy' in sys.modules or 'highspy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0


def test_worth_values_a_replica_of_every_group(
    asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*asked, "--worth", "--json", "-"]) == 0
    groups = {one["group"]: one for one in json.loads(capsys.readouterr().out)["worth"]}
    assert set(groups) == {"a100-80/sglang/llama-3.1-8b", "t4x2/vllm/llama-3.1-8b"}
    assert {"by_dual", "one_more", "one_less"} <= set(groups["t4x2/vllm/llama-3.1-8b"])
    for one in groups.values():
        assert one["one_more_tried"] == pytest.approx(one["one_more"], abs=0.5)
        assert one["one_less_tried"] == pytest.approx(one["one_less"], abs=0.5)
    assert run([*asked, "--worth", "--no-trial", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["worth"][0]["one_more_tried"] is None
    assert run([*asked, "--worth"]) == 0
    assert "one more" in capsys.readouterr().out


def test_worth_without_prices_says_what_its_advice_would_rest_on(
    asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*asked, "--worth", "--no-trial", "--weights", "cost=0"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "unpriced: its rent weighs nothing" in said
    assert "planner.usd_per_hour" in said
    assert "buy" not in said


def test_buying_tries_the_fleet_before_it_is_believed(
    asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("l4: 0.7\na100-80: {usd_per_hour: 3.67, most: 4}\n")
    buying = [*asked, "--buy", "--offers", str(prices)]
    assert run([*buying, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kept"] is True
    assert found["attempts"][-1]["slo_attainment"] >= 0.99
    assert set(found["single_type_usd_per_hour"]) == {"l4", "a100-80"}
    assert found["backends"]
    assert run([*buying, "--no-trial"]) == 0
    said = capsys.readouterr().out
    assert "not tried" in said
    assert "backends:" in said


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("- t4", "must map GPUs to prices"),
        ("t4: [", "cannot read the price list"),
        ("t5: 1.0", "unknown GPU 't5'"),
    ],
)
def test_a_bad_price_list_is_named(
    asked: list[str],
    tmp_path: Path,
    content: str,
    complaint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text(content)
    assert run([*asked, "--buy", "--offers", str(prices)]) == 2
    assert complaint in capsys.readouterr().err


def test_the_file_may_set_the_rules_and_the_flags_win(
    tmp_path: Path, trace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(FLEET + "planner: {budget_usd_per_hour: 4.0, usd_per_hour: {a100-80: 3.0}}\n")
    fleet = ["--workload", trace, "--fleet", str(path)]
    assert _json(capsys, *fleet)["cost_usd_per_hour"] <= 4.0  # type: ignore[operator]
    assert run(["plan", *fleet, "--budget", "0.1"]) == 1
    assert "0.10" in capsys.readouterr().err


def test_tenants_are_planned_in_the_groups_of_the_file(tmp_path: Path) -> None:
    from router.cli.plan_demand import demand_of
    from router.config.load import load_config
    from simulator.traces.columns import Trace
    from simulator.traces.record import TraceRecord

    path = tmp_path / "groups.yaml"
    path.write_text(FLEET + "planner: {tenant_groups: {a: gold, b: gold}}\n")
    records = [TraceRecord(float(n), 100, 10, tenant="abc"[n % 3]) for n in range(9)]
    workload = demand_of(Trace("t").extend(records), load_config(path), by_tenant=False)
    rates = {work.tenant: work.rate_per_s for work in workload.classes}
    assert rates["gold"] == pytest.approx(2 * rates[""])


@pytest.mark.parametrize(
    ("planner", "complaint"),
    [
        ("{weights: {speed: 1}}", "no weight 'speed'"),
        ("{weights: {cost: .nan}}", "planner.weights.cost"),
        ("{weights: {cost: -1}}", "planner.weights.cost"),
        ("{weights: {cost: cheap}}", "planner.weights.cost"),
        ("{usd_per_hour: {a1000: 1.0}}", "unknown GPU 'a1000'"),
        ("{budget_usd_per_hour: 0}", "planner.budget_usd_per_hour"),
    ],
)
def test_senseless_settings_of_the_file_are_named(
    tmp_path: Path,
    trace: str,
    planner: str,
    complaint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(FLEET + f"planner: {planner}\n")
    assert run(["plan", "--workload", trace, "--fleet", str(path)]) == 2
    assert complaint in capsys.readouterr().err
