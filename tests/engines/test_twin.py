"""``motley calibrate`` and ``motley validate`` against real engines."""

from __future__ import annotations

import json

import pytest

from router.cli.main import run
from router.perf.overrides import load_overrides
from tests.engines.conftest import need
from tests.engines.servers import LIMITS, Wanted, serving

pytestmark = [pytest.mark.engines, pytest.mark.timeout(2_400)]


@pytest.fixture(scope="module", params=["vllm", "sglang"])
def engine(models, request):
    """Options that name it; one at a time, or each would measure the other."""
    need(request.param)
    with serving(models, Wanted(request.param)) as (server,):
        told = [part for flag in LIMITS[request.param].items() for part in flag]
        yield ["--url", server.url, "--gpu", "cpu", *told, "--max-prompt-tokens", "512"]


STEADY_PERCENT = 30.0
"""How far an engine's own speed may drift where it is to be compared with anything."""


def test_its_iteration_is_measured(engine, tmp_path):
    """On a busy machine fewer answers come in a second, so that it takes more of them."""
    out = tmp_path / "mine.yaml"
    codes = []
    for seconds in ("40", "120", "360"):
        codes.append(run(["calibrate", *engine, "--seconds", seconds, "--out", str(out)]))
        if codes[-1] == 0:
            break
    assert codes[-1] == 0, codes
    (override,) = load_overrides(out)
    values = override.values
    # A prompt token costs less than an iteration, and more than a cached token costs to read.
    assert values["context_s"] < values["prefill_s"] < values["step_s"] < 1.0


def test_its_twin_is_of_the_same_size(engine, tmp_path):
    out = tmp_path / "twin.json"
    replay = ["--minutes", "1", "--load", "0.3", "--scale-lengths", "0.15", "--seconds", "60"]
    drifts = []
    for _ in range(3):
        assert run(["validate", *engine, *replay, "--json", str(out)]) == 0
        document = json.loads(out.read_text())
        drifts.append(document["drift_percent"])
        if drifts[-1] < STEADY_PERCENT:
            break
    else:
        pytest.fail(f"nothing to compare with: the engine's own speed drifted by {drifts} %")
    (live,) = document["live"]
    assert live["failed"] == 0
    assert live["completed"] == document["twin"]["completed"] == document["workload"]["requests"]
    for row in document["rows"]:
        if row["quantile"] == 50.0:  # the machine may be shared: within a factor of two
            assert -50.0 < row["error_percent"] < 100.0, row
