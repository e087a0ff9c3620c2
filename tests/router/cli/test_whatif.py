"""``motley whatif`` as a person uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from router.cli.main import run

FLEET = """
backends:
  - {gpu: a100-80, model: llama-3.1-8b}
  - {gpu: t4, count: 2, model: llama-3.1-8b, tensor_parallel: 2}
"""


def whatif(capsys: pytest.CaptureFixture[str], fleet: str, *words: str) -> tuple[int, str, str]:
    code = run(["whatif", "--fleet", fleet, "--progress", "none", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_answer_has_both_worlds_intervals_and_costs(
    capsys: pytest.CaptureFixture[str], fleet: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = ("--from", "azure-conv-like", "--last", "40", "--remove", "t4", "--seeds", "2")
    code, out, _ = whatif(capsys, fleet, *words)
    assert code == 0
    for word in ("now:", "then:", "TTFT P99", "E2E P99", "95 % interval", "$ per hour", "goodput"):
        assert word in out
    assert "over 40 s, 2 replays" in out
    assert "…" not in out  # nothing is cut off in 80 columns


def test_json_for_programs_and_lines_of_progress(
    capsys: pytest.CaptureFixture[str], fleet: str
) -> None:
    words = ("--from", "azure-conv-like", "--last", "20", "--policy", "round-robin")
    code, out, err = whatif(
        capsys, fleet, *words, "--seeds", "1", "--json", "-", "--progress", "lines"
    )
    assert code == 0
    assert json.loads(out)["policy_then"] == "round-robin"
    shares = [json.loads(line)["share"] for line in err.splitlines()]
    assert shares[-1] == 1.0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--add", "t4"], "telemetry.record.directory"),
        (["--from", "azure-conv-like"], "nothing would change"),
        (["--from", "azure-conv-like", "--add", "t5"], "t5"),
        (["--from", "nowhere", "--add", "t4"], "nowhere"),
        (["--from", "azure-conv-like", "--add", "t4", "--last", "0"], "--last must be above 0"),
        (["--from", "azure-conv-like", "--add", "t4", "--json", "no/such.json"], "does not exist"),
    ],
)
def test_what_is_wrong_is_one_line(
    capsys: pytest.CaptureFixture[str], fleet: str, words: list[str], named: str
) -> None:
    code, _, err = whatif(capsys, fleet, *words)
    assert code == 2
    assert named in err
    assert "Traceback" not in err


def test_before_anything_was_recorded_it_says_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(f"{FLEET}telemetry: {{record: {{directory: {tmp_path}/record}}}}\n")
    code, _, err = whatif(capsys, str(path), "--load", "2")
    assert code == 2
    (line,) = err.strip().splitlines()
    assert "nothing has been recorded yet" in line
    assert "--from" in line
