"""``motley calibrate`` from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.cli.main import run
from router.perf.overrides import load_overrides

ROWS = (
    "prefill_tokens,decode_seqs,context_tokens,time_ms\n0,1,500,120\n0,16,8000,140\n512,0,0,600\n"
)


@pytest.fixture
def measurements(tmp_path: Path) -> Path:
    file = tmp_path / "mine.csv"
    file.write_text(ROWS)
    return file


def test_writes_overrides_and_says_how_much_better_they_are(
    measurements: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "overrides.yaml"
    backend = ["--gpu", "t4", "--model", "llama-3.1-8b", "--tensor-parallel", "2"]
    assert run(["calibrate", "--csv", str(measurements), *backend, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "t4 x2 vllm llama-3.1-8b: 3 points, median error" in said
    (override,) = load_overrides(out)
    assert (override.gpu, override.tensor_parallel) == ("t4", 2)
    assert {"mfu", "mbu"} <= set(override.values)


def test_a_dash_prints_the_yaml_alone(
    measurements: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    backend = ["--gpu", "l4", "--model", "llama-3.1-8b"]
    assert run(["calibrate", "--csv", str(measurements), *backend, "--out", "-"]) == 0
    (tmp_path / "o.yaml").write_text(capsys.readouterr().out)
    assert len(load_overrides(tmp_path / "o.yaml")) == 1


def test_bad_input_is_one_line_and_exit_code_2(
    measurements: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    given = ["calibrate", "--csv", str(measurements), "--model", "llama-3.1-8b"]
    assert run([*given, "--gpu", "t44"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown GPU 't44'. Did you mean 't4'?")
    assert run([*given, "--gpu", "l4", "--out", str(tmp_path / "no" / "o.yaml")]) == 2
    assert "cannot write" in capsys.readouterr().err
