"""``--learned``: every command that simulates or plans may begin with what a gateway kept."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from router.cli.main import run
from router.config.load import load_config
from simulator.options import ReplayOptions
from simulator.run import build_replay
from simulator.synthetic import builtin_trace
from telemetry.learned import Learned, encode

FLEET = """
backends:
  - {gpu: a100-80, engine: sglang, model: llama-3.1-8b}
  - {gpu: v100-32, model: llama-3.1-8b}
"""
TRACE = "azure-conv-like"
SLOWER = 3.0


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Learned:
    """What a gateway had learned: answers of the trace, and an A100 three times as slow."""
    path = tmp_path_factory.mktemp("kept") / "fleet.yaml"
    path.write_text(FLEET)
    trace = builtin_trace(TRACE, duration_s=60.0, seed=1)
    replay = build_replay(trace, load_config(path), "motley", ReplayOptions(model_error=0.0))
    replay.run()
    learned = replay.learned()
    a100, v100 = learned.speeds
    logs = [math.log(SLOWER)] * len(a100.factors.phi)
    slow = replace(a100, factors=replace(a100.factors, phi=logs))
    return replace(learned, origin="gateway", written_unix_s=1e9, speeds=[slow, v100])


@pytest.fixture
def file(kept: Learned, tmp_path: Path) -> Path:
    path = tmp_path / "learned.json"
    path.write_bytes(encode(replace(kept, written_unix_s=2e9)))
    return path


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run(list(words)) == 0
    return capsys.readouterr().out


def test_what_if_begins_both_worlds_with_it(
    fleet: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["whatif", "--fleet", fleet, "--from", TRACE, "--last", "20", "--remove", "v100"]
    asked += ["--seeds", "1", "--progress", "none", "--json", "-"]
    cold = json.loads(said(capsys, *asked))["lines"]
    warm = json.loads(said(capsys, *asked, "--learned", str(file)))["lines"]
    assert [one["name"] for one in cold] == [one["name"] for one in warm]
    assert any(a["now"] != b["now"] for a, b in zip(cold, warm, strict=True))


def test_a_sweep_begins_every_run_with_it_and_does_runs_again_when_it_changes(
    fleet: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = Path(fleet).with_name("grid.yaml")
    grid = (
        f"{{traces: [{TRACE}], fleets: [fleet.yaml], policies: [motley], "
        "trace_options: {duration_s: 20}"
    )
    spec.write_text(grid + "}")
    asked = ["sweep", str(spec), "--jobs", "1", "--json", "-"]
    (cold,) = json.loads(said(capsys, *asked))["runs"]
    (warm,) = json.loads(said(capsys, *asked, "--learned", str(file)))["runs"]
    assert warm["e2e_s"] != cold["e2e_s"]

    spec.write_text(grid + ", learned: learned.json}")
    (named,) = json.loads(said(capsys, *asked))["runs"]
    assert named["e2e_s"] == warm["e2e_s"]
    file.write_bytes(encode(Learned("gateway", 2e9)))
    (emptied,) = json.loads(said(capsys, *asked))["runs"]
    assert emptied["e2e_s"] == cold["e2e_s"]


def test_a_plan_is_made_with_the_speeds_of_the_real_cards(
    fleet: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def busy(*more: str) -> float:
        out = said(capsys, "plan", "--workload", TRACE, "--duration", "60", "--fleet", fleet, *more)
        groups = json.loads(out)["worth"]
        return float(next(one for one in groups if one["group"].startswith("a100"))["utilization"])

    worth = ("--worth", "--no-trial", "--json", "-")
    as_listed = busy(*worth)
    assert busy(*worth, "--learned", str(file)) > 1.5 * as_listed

    asked = ["plan", "--workload", TRACE, "--duration", "60", "--fleet", fleet]
    assert run(asked) == 0
    assert run([*asked, "--learned", str(file)]) == 1
    assert "find no room within their latency targets" in capsys.readouterr().err


def test_what_to_rent_is_chosen_by_them_too(
    fleet: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offers = Path(fleet).with_name("prices.yaml")
    offers.write_text("a100-80: {usd_per_hour: 3.67, engine: sglang}\n")
    asked = ["plan", "--workload", TRACE, "--duration", "20", "--fleet", fleet]
    asked += ["--rate-scale", "4", "--buy", "--no-trial", "--offers", str(offers), "--json", "-"]
    as_listed = json.loads(said(capsys, *asked))["backends"]
    as_learned = json.loads(said(capsys, *asked, "--learned", str(file)))["backends"]
    assert as_learned[0]["count"] > as_listed[0]["count"]


def test_a_file_without_speeds_of_these_cards_says_so(
    fleet: str, file: Path, kept: Learned, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = [replace(speed, group=f"other/{speed.group}") for speed in kept.speeds]
    asked = ["plan", "--workload", TRACE, "--duration", "20", "--fleet", fleet, "--json", "-"]
    as_listed = json.loads(said(capsys, *asked))["replicas"]
    for useless in (replace(kept, origin="simulation"), replace(kept, speeds=elsewhere)):
        file.write_bytes(encode(useless))
        assert run([*asked, "--learned", str(file)]) == 0
        told = capsys.readouterr()
        assert f"note: {file} has no speeds of these cards to plan with" in told.err
        assert json.loads(told.out)["replicas"] == as_listed


def asked_of(command: str, fleet: str) -> list[str]:
    spec = Path(fleet).with_name("grid.yaml")
    spec.write_text(
        f"{{traces: [{TRACE}], fleets: [fleet.yaml], policies: [motley], "
        "trace_options: {duration_s: 5}}"
    )
    short = ["--duration", "5", "--fleet", fleet]
    return {
        "plan": ["plan", "--workload", TRACE, *short, "--allow-unserved"],
        "simulate": ["simulate", TRACE, *short],
        "sweep": ["sweep", str(spec), "--jobs", "1"],
        "whatif": ["whatif", "--from", TRACE, "--last", "5", "--load", "2", "--fleet", fleet],
    }[command]


@pytest.mark.parametrize("command", ["plan", "simulate", "sweep", "whatif"])
def test_a_file_that_is_none_is_one_line_and_a_part_that_is_none_is_noted(
    command: str, fleet: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = asked_of(command, fleet)
    assert run([*asked, "--learned", "nowhere.json"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "cannot read nowhere.json" in line

    broken = tmp_path / "broken.json"
    broken.write_text('{"motley_learned":1,"origin":"gateway","written_unix_s":1,"speeds":[1]}')
    assert run([*asked, "--learned", str(broken)]) == 0
    assert f"note: {broken}: speeds: " in capsys.readouterr().err
