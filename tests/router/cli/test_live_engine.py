"""``motley calibrate --url`` and ``motley validate`` against an emulated engine on a socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from router.cli.main import run
from router.domain.fleet import BackendSpec
from router.perf.overrides import load_overrides
from simulator.engine_server.host import EngineHost

MODEL = "llama-3.1-8b"
SHORT = ["--seconds", "4", "--max-concurrency", "4", "--max-prompt-tokens", "512"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    spec = BackendSpec("emulated", "a100-80", "vllm", MODEL)
    with EngineHost([spec]) as host:
        host.start(speed=4.0)
        host.wait_until_ready()
        yield host.urls["emulated"]


def test_calibrate_writes_what_a_fleet_file_takes(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "mine.yaml"
    assert run(["calibrate", "--url", url, "--gpu", "a100-80", *SHORT, "--out", str(out)]) == 0
    (override,) = load_overrides(out)
    assert (override.gpu, override.engine, override.model) == ("a100-80", "vllm", MODEL)
    assert {"step_s", "prefill_s", "seq_s", "context_s"} <= set(override.values)
    assert f"# Measured on {url}." in out.read_text()
    said = capsys.readouterr().out
    assert "held back" in said
    assert "90 %:" in said
    assert "max_num_seqs taken to be 256" in said


def test_validate_prints_both_side_by_side_and_writes_json(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "twin.json"
    engine = ["--url", url, "--gpu", "a100-80", *SHORT]
    replay = ["--minutes", "0.05", "--rate-scale", "2", "--scale-lengths", "0.1"]
    assert run(["validate", *engine, *replay, "--json", str(out)]) == 0
    said = capsys.readouterr().out
    assert "TTFT P99" in said
    assert "slowest probe" in said
    document = json.loads(out.read_text())
    assert len(document["rows"]) == 9
    assert document["live"][0]["failed"] == 0
    assert document["live"][0]["completed"] == document["twin"]["completed"] > 5


def test_validate_with_a_known_iteration_does_not_probe(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    known = tmp_path / "known.yaml"
    known.write_text(
        f"overrides:\n  - {{gpu: a100-80, engine: vllm, model: {MODEL}, tensor_parallel: 1, "
        "step_s: 0.001, prefill_s: 7.0e-06, seq_s: 2.0e-06, context_s: 8.0e-09}\n"
    )
    engine = ["--url", url, "--gpu", "a100-80", "--calibration", str(known)]
    replay = ["--minutes", "0.05", "--rate-scale", "2", "--scale-lengths", "0.1"]
    assert run(["validate", *engine, *replay, "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["fit"] is None
    assert document["cost"]["prefill_s"] == 7e-6


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["calibrate"], "either measurements (--csv FILE) or a live engine (--url URL)"),
        (["calibrate", "--url", "http://127.0.0.1:9"], "--url needs --gpu"),
        (["calibrate", "--url", "http://127.0.0.1:9", "--gpu", "t4"], "is the engine up"),
        (["calibrate", "--url", "127.0.0.1:9", "--gpu", "t4"], "should look like http://"),
        (
            ["calibrate", "--url", "http://h:1", "--gpu", "t4", "--engine", "vllm"],
            "tells its name and version",
        ),
        (["validate", "--url", "http://127.0.0.1:9", "--gpu", "cpu"], "cannot reach"),
        (["validate", "--url", "http://h:1", "--gpu", "cpu", "--load", "-1"], "above 0"),
        (["validate", "--url", "http://h:1", "--gpu", "cpu", "nothing.csv"], "no such file"),
    ],
)
def test_bad_input_is_named_with_a_remedy(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
):
    assert run(arguments) == 2
    assert named in capsys.readouterr().err


def test_an_unknown_card_is_named(url: str, capsys: pytest.CaptureFixture[str]):
    assert run(["calibrate", "--url", url, "--gpu", "a100_80"]) == 2
    said = capsys.readouterr().err
    assert "unknown GPU 'a100_80'. Did you mean 'a100-80'?" in said
    assert "cpu" in said
