"""``motley trace``: describe, bend, write."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.cli.main import run
from simulator.traces.read import load_trace


def test_it_describes_a_trace(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["trace", "chat-prefix-like", "--duration", "60"]) == 0

    text = capsys.readouterr().out
    for expected in ("requests", "input tokens", "burstiness", "shared prefixes"):
        assert expected in text


def test_what_it_writes_it_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine.jsonl.gz"
    arguments = ["--duration", "60", "--rate-scale", "2", "--classes", "bulk=1,interactive=1"]

    assert run(["trace", "azure-conv-like", *arguments, "--out", str(out)]) == 0

    trace, report = load_trace(out, strict=True)
    assert f"{len(trace)} requests written" in capsys.readouterr().out
    assert trace.span_s < 30
    assert set(trace.slo_class.used()) == {"bulk", "interactive"}
    assert report.summary() == ""


def test_a_file_of_lengths_says_what_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lengths.csv"
    path.write_text("input_tokens,output_tokens\n10,20\n30,40\n")

    assert run(["trace", str(path)]) == 0
    assert "--arrivals poisson" in capsys.readouterr().out
    assert run(["trace", str(path), "--arrivals", "constant", "--rate", "4"]) == 0
    assert "4.00" not in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_line_that_names_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = tmp_path / "full.csv"
    full.symlink_to("/dev/full")
    assert run(["trace", "azure-conv-like", "--duration", "60", "--out", str(full)]) == 2
    assert f"error: cannot write {full}: No space left on device\n" == capsys.readouterr().err


def test_a_bad_name_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["trace", "azure-conf-like"]) == 2
    assert "Did you mean 'azure-conv-like'" in capsys.readouterr().err


def test_requests_of_one_instant_have_no_rate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "one.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n5,10,20\n")

    assert run(["trace", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "all arrive at one instant" in shown
    assert "inf" not in shown


def test_what_it_teaches_of_lengths_warms_a_simulation_and_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, fleet = tmp_path / "learned.json", tmp_path / "fleet.yaml"
    fleet.write_text("backends: [{gpu: a100-80, model: llama-3.1-8b}]")
    teach = ["trace", "azure-conv-like", "--duration", "30", "--learned", str(file)]
    assert run(teach) == 2
    assert "give --model NAME" in capsys.readouterr().err
    assert run([*teach, "--model", "llama-3.1-8b"]) == 0
    assert f"cells of lengths written to {file}" in capsys.readouterr().out.replace("\n", "")
    assert run([*teach, "--model", "llama-3.1-8b"]) == 2
    assert "is there already" in capsys.readouterr().err
    simulate = ["simulate", "azure-conv-like", "--duration", "20", "--fleet", str(fleet)]
    figures = []
    for more in ([], ["--learned", str(file)]):
        assert run([*simulate, "--json", "-", *more]) == 0
        figures.append(capsys.readouterr().out)
    assert figures[0] != figures[1]
    assert run([*simulate, "--learned", str(fleet)]) == 2
    assert f"{fleet}: it is no document" in capsys.readouterr().err
