"""``motley evaluate`` on a real vLLM: its answers, at the engine and through the gateway."""

from __future__ import annotations

import asyncio
import json

import pytest
import yaml

from router.cli.main import run
from router.config.load import load_config
from tests.engines.conftest import need
from tests.engines.fleet import MODEL, config
from tests.engines.servers import Wanted, serving

pytestmark = [pytest.mark.engines, pytest.mark.timeout(900)]

ASKED = ["--category", "qa", "--category", "code", "--concurrency", "8"]


@pytest.fixture(scope="module")
def engine(models):
    """A vLLM with random weights: it answers everything, and knows nothing."""
    need("vllm")
    with serving(models, Wanted("vllm", "tiny", "bytes", MODEL)) as (server,):
        yield server


async def test_a_model_that_knows_nothing_is_told_so_whichever_way_it_is_asked(
    engine, gateway, tmp_path
):
    gate = await gateway({"fast": engine})
    answers = {}
    for way, url in {"engine": engine.url, "gateway": f"{gate.url}/v1#{MODEL}"}.items():
        out, said = tmp_path / f"{way}.json", tmp_path / f"{way}.jsonl"
        words = ["evaluate", "--variant", f"fp32={url}", *ASKED]
        words += ["--json", str(out), "--answers", str(said)]
        assert await asyncio.to_thread(run, words) == 0
        (only,) = json.loads(out.read_text())["models"][0]["variants"]
        assert only["overall"]["value"] < 0.1
        rows = [json.loads(line) for line in said.read_text().splitlines()]
        assert len(rows) == 40
        assert sum(bool(row["answer"].strip()) for row in rows) > 30
        answers[way] = {row["id"]: row["answer"] for row in rows}
    # Greedy, but the sums of a batch depend on who else is in it.
    same = sum(answers["engine"][name] == text for name, text in answers["gateway"].items())
    assert same > 20


def test_what_was_found_is_written_where_the_planner_reads_it(engine, tmp_path):
    """One engine under two names, the second said to be quantized: as good as the first."""
    document = config({"fast": engine, "quantized": engine})
    document["backends"][1]["quantization"] = "fp8"
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(yaml.safe_dump(document))
    assert run(["evaluate", str(fleet), "--category", "qa", "--write"]) == 0
    found = load_config(fleet).planner.quality
    assert list(found) == ["fp8"]
    assert found["fp8"] > 0.5
