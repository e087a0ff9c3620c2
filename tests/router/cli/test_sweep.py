"""``motley sweep``: table, JSON, page; resumed; refused before the first run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from router.cli.main import run

SPEC = """
traces: [azure-conv-like]
fleets: [fleet.yaml]
policies: [motley, round-robin]
loads: [1, 2]
trace_options: {duration_s: 8}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "fleet.yaml").write_text("backends: [{gpu: a100-80, model: llama-3.1-8b}]\n")
    path = tmp_path / "grid.yaml"
    path.write_text(SPEC)
    return path


def test_a_sweep_writes_everything_and_resumes(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    page = spec.with_suffix(".html")

    assert run(["sweep", str(spec), "--jobs", "2", "--html", str(page), "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert run(["sweep", str(spec), "--jobs", "1"]) == 0
    again = capsys.readouterr()

    assert len(document["runs"]) == 4
    assert [f["policy"] for f in document["frontier"]] == ["motley", "round-robin"]
    assert document["failed"] == []
    assert page.read_text().count("<svg") == 1
    assert "4 runs were done already" in again.err
    assert "highest load with 99 %" in again.out


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("fleet.yaml", "other.yaml", "cannot read"),
        ("azure-conv-like", "missing.csv", "no such file"),
        ("[motley,", "[motly,", "unknown policy 'motly'"),
        ("loads:", "load:", "load"),
    ],
)
def test_what_no_run_could_use_is_refused_at_once(
    old: str, new: str, problem: str, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec.write_text(SPEC.replace(old, new))

    assert run(["sweep", str(spec)]) == 2
    assert problem in capsys.readouterr().err


def test_ray_without_ray_and_an_address_without_ray_are_clear(
    spec: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)

    assert run(["sweep", str(spec), "--ray"]) == 2
    assert "pip install 'motley-router[ray]'" in capsys.readouterr().err
    assert run(["sweep", str(spec), "head:6379"]) == 2
    assert "goes with --ray" in capsys.readouterr().err
