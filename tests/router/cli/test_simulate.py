"""``motley simulate``: its contract, its outputs and its mistakes."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from router.cli.main import run
from router.policies.registry import POLICIES

FLEET = """
backends:
  - {gpu: a100-80, count: 2, engine: sglang, model: llama-3.1-8b}
  - {gpu: t4, tensor_parallel: 2, engine: vllm, model: llama-3.1-8b}
"""
LATENCY_FIGURES = {"mean", "p50", "p90", "p95", "p99", "max"}


def simulate(*arguments: str) -> int:
    return run(["simulate", *arguments])


def runs_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"runs"}
    return list(document["runs"])


def test_the_json_contract(fleet: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = simulate(
        *("azure-conv-like", "--fleet", fleet, "--policy", "motley", "--policy", "random"),
        *("--duration", "20", "--rate-scale", "2", "--seed", "5", "--json", "-"),
    )
    first, second = runs_of(capsys)

    assert code == 0
    assert (first["policy"], second["policy"]) == ("motley", "random")
    assert (first["trace"], first["fleet"]) == ("azure-conv-like", "fleet")
    assert (first["rate_scale"], first["seed"]) == (2.0, 5)
    for entry in (first, second):
        settled = ("completed", "rejected", "failed", "cancelled")
        assert entry["arrived"] == sum(entry[name] for name in settled) > 0
        for name in ("ttft_s", "tpot_s", "e2e_s"):
            assert set(entry[name]) == LATENCY_FIGURES
            assert entry[name]["p50"] <= entry[name]["p99"] <= entry[name]["max"]
        assert set(entry["share_by_gpu"]) == {"a100-80", "t4"}
        assert math.isclose(sum(entry["share_by_gpu"].values()), 1.0)
        assert 0 <= entry["slo_attainment"] <= 1
        assert entry["goodput_per_s"] > 0
        assert entry["wall_s"] > 0


def test_all_stands_for_every_policy(fleet: str, capsys: pytest.CaptureFixture[str]) -> None:
    simulate(
        "azure-conv-like", "--fleet", fleet, "--policy", "all", "--duration", "3", "--json", "-"
    )

    assert {entry["policy"] for entry in runs_of(capsys)} == set(POLICIES)


def test_the_fleet_file_s_policy_is_the_default(
    fleet: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(fleet).write_text(FLEET + "policy: {name: round-robin}\n")
    simulate("azure-conv-like", "--fleet", fleet, "--duration", "5", "--json", "-")

    assert [entry["policy"] for entry in runs_of(capsys)] == ["round-robin"]


def test_same_seed_same_bytes(fleet: str, tmp_path: Path) -> None:
    documents = []
    for name in ("a.json", "b.json"):
        path = tmp_path / name
        simulate("azure-conv-like", "--fleet", fleet, "--duration", "10", "--json", str(path))
        document = json.loads(path.read_text())
        for entry in document["runs"]:
            del entry["wall_s"], entry["cpu_s"]
        documents.append(document)

    assert documents[0] == documents[1]


def test_the_table_names_policies_the_best_and_the_assumptions(
    fleet: str, capsys: pytest.CaptureFixture[str]
) -> None:
    simulate(
        *("azure-conv-like", "--fleet", fleet, "--duration", "30"),
        *("--policy", "motley", "--policy", "round-robin"),
    )
    text = capsys.readouterr().out

    assert "motley" in text
    assert "round-robin" in text
    assert "best" in text
    assert "Belief 20 % wrong" in text


def test_rows_per_request_are_complete_and_can_be_replayed(
    fleet: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows_path = tmp_path / "rows.csv"
    common = ("--fleet", fleet, "--policy", "motley", "--json", "-")
    simulate("azure-conv-like", "--duration", "20", "--per-request", str(rows_path), *common)
    (first,) = runs_of(capsys)
    with rows_path.open() as file:
        rows = list(csv.DictReader(file))
    simulate(str(rows_path), *common)
    (again,) = runs_of(capsys)

    assert len(rows) == first["arrived"] == again["arrived"]
    for row in rows:
        assert row["status"] == "completed"
        assert float(row["ttft_s"]) == pytest.approx(
            float(row["first_token_s"]) - float(row["arrival_s"])
        )


def test_parquet_rows_hold_the_types(fleet: str, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    simulate("azure-conv-like", "--fleet", fleet, "--duration", "10", "--per-request", str(path))
    table = pq.read_table(path)

    assert table.column("e2e_s").type == "double"
    assert table.column("input_tokens").type == "int64"
    assert table.column("slo_met").type == "bool"


def test_the_page_is_self_contained_and_says_who_is_best(fleet: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    page = tmp_path / "report.html"
    simulate(
        *("azure-conv-like", "--fleet", fleet, "--duration", "30", "--html", str(page)),
        *("--policy", "motley", "--policy", "round-robin", "--json", str(tmp_path / "r.json")),
    )
    html = page.read_text()

    assert html.count("<svg") >= 5
    assert "has the lowest end-to-end P99" in html
    for outside in ("src=", 'href="http', "@import", "<script"):
        assert outside not in html


def test_a_decision_log_of_a_simulation_replays(
    fleet: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "decisions.jsonl"
    simulate("azure-conv-like", "--fleet", fleet, "--duration", "10", "--decision-log", str(log))
    capsys.readouterr()

    assert run(["replay", str(log)]) == 0
    assert "every answer the same" in capsys.readouterr().out


def test_several_runs_write_several_decision_logs(fleet: str, tmp_path: Path) -> None:
    simulate(
        *("azure-conv-like", "--fleet", fleet, "--duration", "5", "--seeds", "2"),
        *("--policy", "motley", "--decision-log", str(tmp_path / "d.jsonl")),
    )

    assert sorted(p.name for p in tmp_path.glob("d*")) == ["d-motley-0.jsonl", "d-motley-1.jsonl"]


def test_faults_zones_and_mixes_come_from_the_command_line(
    fleet: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    timeline = tmp_path / "faults.yaml"
    timeline.write_text("- {at_s: 5, backend: a100-80-0, kind: kill}\n")
    simulate(
        *("azure-conv-like", "--fleet", fleet, "--duration", "20", "--json", "-"),
        *("--faults", str(timeline), "--mix", "chat-prefix-like", "--routers", "2"),
        *("--classes", "interactive=1,bulk=1", "--client-timeout", "60", "--plan", "on"),
    )
    (entry,) = runs_of(capsys)

    assert entry["trace"] == "azure-conv-like+chat-prefix-like"
    assert entry["options"]["routers"] == 2
    assert entry["arrived"] > 0


def test_an_oracle_is_labelled_wherever_it_is_shown(
    fleet: str, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("azure-conv-like", "--fleet", fleet, "--duration", "5", "--oracle")
    simulate(*common, "--json", "-")
    (entry,) = runs_of(capsys)
    simulate(*common)

    assert "ORACLE" in entry["notes"][0]
    assert "ORACLE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--model-error", "0.5"], "--model-error would"),
        (["--length-predictor", "bucket"], "--length-predictor would"),
        (["--scrape-interval", "5", "--telemetry-delay", "1"], "--scrape-interval, --telemetry-"),
        (["--feedback", "off"], "--feedback would"),
    ],
)
def test_an_oracle_overrides_nothing_that_was_asked_for(
    flags: list[str], told: str, fleet: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["simulate", "azure-conv-like", "--fleet", fleet, "--duration", "5", "--oracle"]
    assert run([*asked, *flags]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: --oracle ")
    assert told in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["no-such-trace"], "no such file, and no built-in workload"),
        (["azure-conv-like", "--policy", "fastest"], "unknown policy 'fastest'"),
        (["azure-conv-like", "--duration", "0"], "--duration must be more than 0"),
        (["azure-conv-like", "--start", "-1"], "--start must be 0 or more"),
        (["azure-conv-like", "--rate-scale", "0"], "above 0"),
        (["azure-conv-like", "--model", "gpt-9"], "'gpt-9', which no backend"),
        (["azure-conv-like", "--arrivals", "poisson"], "needs --rate"),
        (["azure-conv-like", "--max-tokens", "lots"], "unknown max_tokens rule"),
        (["azure-conv-like", "--classes", "bulk"], "name=share"),
        (["azure-conv-like", "--json", "no/where.json"], "the folder 'no' does not exist"),
        (["azure-conv-like", "--per-request", "rows.xlsx"], "end the name with"),
        (["azure-conv-like", "--model-error", "-1"], "model_error must be"),
        (["azure-conv-like", "--model-error", "1e9"], "model_error must be at most 3"),
        (["azure-conv-like", "--scrape-interval", "1e-9"], "0 (never) or at least 0.001 s"),
        (["azure-conv-like", "--seed", "-5"], "a seed must be 0 or more"),
        (["azure-conv-like", "--rate", "5"], "--rate 5 says nothing without --arrivals"),
        (["azure-conv-like", "--start", "1e9"], "604,800 s (a week) at most"),
        (["azure-conv-like", "--upsample", "1e9"], "are too many"),
        (["azure-conv-like", "--format", "azure"], "--format azure goes with files"),
        (["azure-conv-like", "--duration", "9", "--zone-delay", "mars=1"], "unknown zone 'mars'"),
        (["azure-conv-like", "--html", "-"], "only --json writes to stdout"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(
    arguments: list[str], problem: str, fleet: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate(*arguments, "--fleet", fleet) == 2

    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert problem in shown.err
    assert "Traceback" not in shown.err


@pytest.mark.parametrize(
    "line",
    [
        "simulate azure-conv-like --duration 10 --fleet",
        "plan --workload azure-conv-like --duration 10 --fleet",
        "tune --workload azure-conv-like --duration 60 --trials 1 --fleet",
        "whatif --from azure-conv-like --last 60 --load 2 --fleet",
    ],
)
def test_a_fleet_that_is_only_to_be_discovered_must_be_listed(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # motley tune keeps its study there
    path = tmp_path / "fleet.yaml"
    path.write_text("backends: []\ndiscovery: {files: [{path: others.yaml}]}\n")

    assert run([*line.split(), str(path)]) == 2
    assert f"error: {path} lists no backends" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("option", ["--html", "--per-request", "--decision-log", "--json"])
def test_a_full_disk_is_one_line_that_names_the_file(
    option: str, fleet: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = tmp_path / "full.jsonl"
    full.symlink_to("/dev/full")

    arguments = ("azure-conv-like", "--fleet", fleet, "--duration", "10", option, str(full))
    assert simulate(*arguments) == 2
    assert f"error: cannot write {full}: No space left on device\n" == capsys.readouterr().err


def test_a_fault_that_comes_too_late_is_said_to_change_nothing(
    fleet: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    timeline = tmp_path / "faults.yaml"
    timeline.write_text("- {at_s: 9000, backend: a100-80-0, kind: kill}\n")
    arguments = ("azure-conv-like", "--fleet", fleet, "--duration", "10", "--json", "-")
    assert simulate(*arguments, "--faults", str(timeline)) == 0

    (entry,) = runs_of(capsys)
    assert "1 fault(s) come after the last answer" in entry["notes"][0]
    assert "kill of a100-80-0 at 9000 s" in entry["notes"][0]


def test_a_time_of_another_age_is_a_malformed_line(
    fleet: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A replay would go through all the empty years, second by second."""
    trace = tmp_path / "t.csv"
    trace.write_text("arrival_s,input_tokens,output_tokens\n0,10,10\n1e300,10,10\n1,10,10\n")

    assert simulate(str(trace), "--fleet", fleet, "--json", "-") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["runs"][0]["arrived"] == 2
    assert "more than a year" in " ".join(shown.err.split())


def test_a_malformed_line_is_named_and_counted_and_strict_stops(
    fleet: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "t.csv"
    trace.write_text("arrival_s,input_tokens,output_tokens\n0,10,10\noops\n1,10,10\n")

    assert simulate(str(trace), "--fleet", fleet, "--json", "-") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["runs"][0]["arrived"] == 2
    assert "1 malformed line(s) skipped" in shown.err
    assert "t.csv:3" in shown.err.replace("\n", "")
    assert simulate(str(trace), "--fleet", fleet, "--strict") == 2
