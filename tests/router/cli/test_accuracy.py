"""``motley accuracy`` from the command line."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest

from router.cli.main import run
from router.perf import profiles
from router.perf.profiles import default_folder

needs_tables = pytest.mark.skipif(
    not (default_folder() / "helix_iteration_times.csv").is_file(),
    reason="no measured tables; set MOTLEY_SHARED",
)


@needs_tables
def test_prints_a_table_per_engine_and_the_gaps(capsys: pytest.CaptureFixture[str]):
    assert run(["accuracy"]) == 0
    said = capsys.readouterr().out
    for word in ("Helix", "v100-16", "held back", "priors", "Where the data is thin", "h200"):
        assert word in said


@needs_tables
def test_json_goes_to_a_file_or_to_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["accuracy", "--json", "-"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {"engine", "gpu", "phase", "split", "points", "median_ape"} <= set(printed["rows"][0])
    assert run(["accuracy", "--json", str(tmp_path / "a.json")]) == 0
    assert json.loads((tmp_path / "a.json").read_text()) == printed


def test_a_folder_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]):
    assert run(["accuracy", "--data", "/no/such/folder"]) == 2
    assert "no folder /no/such/folder" in capsys.readouterr().err


def test_an_installation_without_the_tables_says_which_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("MOTLEY_SHARED", str(tmp_path))
    assert run(["accuracy"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "does not ship the tables" in line
    assert "--data" in line
    page = Path(__file__).parents[3] / "docs/pages/explanation/how-fast-an-engine-is.md"
    for name in set(re.findall(r'"(\w+\.csv)"', inspect.getsource(profiles))):
        assert name in page.read_text("utf-8")
