"""The whole of it against a real vLLM on the CPU: minutes long, so only in the full suite."""

import json

import pytest

from benchmarks.real_engine.vllm import MISSING, SETTINGS, vllm, vllm_python
from router.cli.main import run
from router.perf.overrides import load_overrides

pytestmark = [pytest.mark.full, pytest.mark.timeout(1_200)]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    python = vllm_python()
    if python is None:
        pytest.skip(MISSING)
    with vllm(python, tmp_path_factory.mktemp("vllm")) as address:
        yield address


@pytest.fixture
def engine(url):
    told = [part for flag in SETTINGS.items() for part in flag]
    return ["--url", url, "--gpu", "cpu", *told, "--max-prompt-tokens", "512"]


def test_its_iteration_is_measured(engine, tmp_path):
    out = tmp_path / "mine.yaml"
    assert run(["calibrate", *engine, "--seconds", "40", "--out", str(out)]) == 0
    (override,) = load_overrides(out)
    values = override.values
    # A prompt token costs less than an iteration, and more than a cached token costs to read.
    assert values["context_s"] < values["prefill_s"] < values["step_s"] < 1.0


def test_its_twin_is_of_the_same_size(engine, tmp_path):
    out = tmp_path / "twin.json"
    replay = ["--minutes", "1", "--load", "0.3", "--scale-lengths", "0.15", "--seconds", "60"]
    assert run(["validate", *engine, *replay, "--json", str(out)]) == 0
    document = json.loads(out.read_text())
    (live,) = document["live"]
    assert live["failed"] == 0
    assert live["completed"] == document["twin"]["completed"] == document["workload"]["requests"]
    for row in document["rows"]:
        if row["quantile"] == 50.0:  # the machine may be shared: within a factor of two
            assert -50.0 < row["error_percent"] < 100.0, row
