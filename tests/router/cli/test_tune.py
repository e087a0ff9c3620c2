"""``motley tune`` from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from router.cli.main import run
from router.config.load import load_config

FLEET = """\
# two kinds of cards
backends:
  - {gpu: a100-80, count: 2, model: llama-3.1-8b}
  - {gpu: t4, count: 2, tensor_parallel: 2, model: llama-3.1-8b}
planner:
  weights: {cost: 0.001}
  enabled: true  # kept
"""


@pytest.fixture
def asked(tmp_path: Path) -> list[str]:
    (tmp_path / "fleet.yaml").write_text(FLEET)
    return [
        *("tune", "--workload", "azure-conv-like", "--duration", "160", "--trials", "6"),
        *("--fleet", str(tmp_path / "fleet.yaml"), "--study", str(tmp_path / "t.sqlite")),
    ]


def outcome(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run([*arguments, "--json", "-"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_better_weights_are_written_into_the_file_and_a_second_run_resumes(
    asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = outcome(capsys, *asked)
    assert found["better"]
    assert not found["written"]
    assert found["usd_per_hour"]["tuned"] < found["usd_per_hour"]["current"]
    assert found["judged_on"]["tuned"]["attainment"] >= 0.99
    again = outcome(capsys, *asked, "--write")
    assert (again["trials"], again["resumed"]) == (6, 6)
    assert again["written"]
    assert load_config(tmp_path / "fleet.yaml").planner.weights == again["weights"]
    assert "# kept" in (tmp_path / "fleet.yaml").read_text()


def test_a_table_for_people(asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(asked) == 0
    said = capsys.readouterr().out
    for word in ("held back", "now", "tuned", "--write puts them", "6 trials"):
        assert word in said


def test_too_short_a_trace(asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    asked[asked.index("160")] = "4"
    assert run(asked) == 2
    assert "at least 50 are needed" in capsys.readouterr().err


def test_trials_in_processes_find_as_much(
    asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = outcome(capsys, *asked, "--jobs", "2")
    assert (found["better"], found["trials"]) == (True, 6)
    assert outcome(capsys, *asked, "--jobs", "2")["resumed"] == 6


@pytest.mark.full
@pytest.mark.timeout(300)
def test_trials_on_ray_find_as_much(asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray", reason="Ray is an extra: pip install 'motley-router[ray]'")
    found = outcome(capsys, *asked, "--ray", "local", "--jobs", "2")
    assert (found["better"], found["trials"]) == (True, 6)


def test_a_ray_cluster_that_is_not_there_is_one_line(
    asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray", reason="Ray is an extra: pip install 'motley-router[ray]'")
    assert run([*asked, "--ray", "127.0.0.1:1"]) == 2
    assert "no Ray cluster at '127.0.0.1:1'" in capsys.readouterr().err
