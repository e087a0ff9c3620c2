"""``motley check``: what a configuration means, and what looks wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from router.cli.main import run
from tests.fakes.http_server import Handler, served

MODEL = "llama-3.1-8b"


def entry(**more: object) -> dict[str, object]:
    return {"gpu": "a100-80", "model": MODEL, "url": "http://10.0.0.1:1", **more}


def check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *flags: str, **content: Any
) -> tuple[int, str]:
    path = tmp_path / "fleet.yaml"
    path.write_text(json.dumps(content))
    code = run(["check", str(path), *flags])
    ended = capsys.readouterr()
    return code, ended.out + ended.err


def test_it_tells_what_each_backend_can_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = [
        entry(),
        entry(gpu="t4", tensor_parallel=2, count=2, url=["http://b:1", "http://c:1"]),
    ]
    code, text = check(tmp_path, capsys, "--json", backends=fleet)
    assert code == 0
    fast, slow, _ = json.loads(text)["backends"]
    assert (fast["name"], fast["cards"]) == ("a100-80-0", "1 x a100-80")
    assert fast["kv_capacity_tokens"] > slow["kv_capacity_tokens"] > 10_000
    assert 0.01 < fast["ttft_s"] < slow["ttft_s"] < 2.0
    assert 0.005 < fast["tpot_s"] < fast["tpot_crowded_s"] < slow["tpot_crowded_s"] < 0.2
    code, text = check(tmp_path, capsys, backends=fleet)
    assert "t4-0 +1" in text


def test_names_and_figures_of_several_models_are_not_cut_off_in_80_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    other = entry(model="qwen2.5-7b", url="http://d:1")
    code, text = check(tmp_path, capsys, backends=[entry(), entry(max_num_seqs=2), other])
    assert (code, "…" in text) == (0, False)
    assert {"a100-80-0", "a100-80-1", "a100-80-2", "qwen2.5-7b"} <= set(text.split())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"backends": [entry()]}, "one backend serves it; when that fails, nobody does"),
        ({"backends": [entry(url=None)]}, "no url; 'motley serve' needs one"),
        ({"backends": [entry(), entry(name="b")]}, "the same url"),
        ({"backends": [entry()], "server": {"host": "0.0.0.0"}}, "everybody may use the gateway"),
        (
            {"backends": [entry()], "server": {"host": "0.0.0.0", "api_keys": ["k"]}},
            "keys travel unencrypted",
        ),
        ({"backends": [entry()], "server": {"api_keys": ["k"]}}, "1 in plain text"),
        (
            {"backends": [entry()], "access": {"keys_file": "nowhere/keys.json"}},
            "make it with 'motley keys create NAME -f nowhere/keys.json'",
        ),
        ({"backends": [entry()], "server": {"workers": 2}}, "answer for one worker at random"),
        ({"backends": [entry()], "shared": {"interval_s": 1.0}}, "do worse than without any"),
        (
            {"backends": [entry()], "slos": {"interactive": {"ttft_s": 0.001}}},
            "even idle its TTFT",
        ),
        (
            {"backends": [entry(), entry(url="http://b:1", max_model_len=4096)]},
            "longer prompts go to the roomier backends",
        ),
    ],
)
def test_what_looks_wrong_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: dict[str, Any], says: str
) -> None:
    code, text = check(tmp_path, capsys, "--strict", **content)
    assert code == 1
    assert says in text


def test_what_holds_of_many_backends_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = entry(count=6, url=[f"http://h{n}:1" for n in range(6)])
    _, text = check(tmp_path, capsys, backends=[many], slos={"interactive": {"ttft_s": 0.001}})
    assert text.count("even idle its TTFT") == 1
    assert "and 2 more: even idle" in text


def test_a_model_with_targets_of_its_own_is_held_to_those(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = {"ttft_s": 0.001, "models": {MODEL: {"ttft_s": 10.0}}}
    _, text = check(tmp_path, capsys, backends=[entry()], slos={"interactive": targets})
    assert "even idle" not in text


def test_a_wrong_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = check(tmp_path, capsys, backends=[entry(gpu="t4")])
    assert code == 2
    assert text.startswith("error: ")


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"backends": [entry(url="ftp://h:1")]}, "is not of the form http://host:port"),
        ({"backends": [entry(url="http://me:secret@h:1")]}, "a user name or a password"),
        ({"backends": [entry(url="http://h:99999")]}, "Port out of range"),
        ({"backends": [entry(url="http://h:1/v1?api-version=1")]}, "give the base URL alone"),
        ({"admin": {"port": 8000}}, "give the admin surface a port of its own"),
        ({"admin": {"port": 7999}, "server": {"workers": 2}}, "one more for each worker"),
        ({"admin": {"worker_networks": ["ten"]}}, "is no network like 10.0.0.0/8"),
        ({"batch": {"slo_class": "bluk"}}, "there is no class 'bluk'"),
        (
            {"access": {"oidc": {"issuer": "i", "audience": "a", "jwks": "http://id.example/k"}}},
            "must be https",
        ),
    ],
)
def test_what_serve_would_refuse_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], section: dict[str, Any], says: str
) -> None:
    code, text = check(tmp_path, capsys, **({"backends": [entry()]} | section))
    assert (code, text.count("\n")) == (2, 1)
    assert says in text


def key(**rights: Any) -> dict[str, Any]:
    return {"keys": [{"name": "ann", "hash": "sha256:" + "0" * 64, **rights}]}


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"aliases": {"tuned": MODEL}, "adapters": {"tuned": MODEL}}, "hides the adapter"),
        ({"adapters": {MODEL: MODEL}}, "hides the model of that name"),
        ({"access": key(models=[MODEL, "typo"])}, "'ann' may use typo, which nobody serves"),
        ({"access": key(classes=["interactve"])}, "may use the class interactve: there is none"),
        (
            {"access": key(usd_per_day=1.0) | {"prices": {"typo": {}}}},
            f"says nothing of {MODEL}: that costs nothing",
        ),
        ({"access": {"prices": {"typo": {}}}}, "access.prices names typo, which no backend serves"),
        ({"reliability": {"total_timeout_s": 100}}, "first_byte_timeout_s is 120 and total"),
        ({"backends": [entry(url="http://127.0.0.1:8000")]}, "is the gateway itself"),
        ({"server": {"api_keys": ["${KEY}"]}}, "nothing is put in its place"),
        (
            {"server": {"tls": {"cert_file": "/nowhere", "key_file": "/nowhere"}}},
            "No such file or directory; where that is so 'motley serve' does not start",
        ),
        (
            {"access": {"oidc": {"issuer": "i", "audience": "a", "jwks": "/nowhere"}}},
            "there is no file /nowhere; where that is so 'motley serve' does not start",
        ),
        (
            {"upstream": {"api_key_env": "NOBODY_SETS_THIS"}},
            "NOBODY_SETS_THIS is not set; export it with the engines' API key; where that is so",
        ),
    ],
)
def test_what_would_never_be_as_it_is_written_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], section: dict[str, Any], says: str
) -> None:
    sections = {"reliability": {"total_timeout_s": 1800}} | section
    code, text = check(tmp_path, capsys, **({"backends": [entry()]} | sections))
    assert code == 0
    assert says in text


class Told(Handler):
    def get(self) -> None:
        self.say(
            json.dumps(
                {"data": [{"id": "other", "owned_by": "vllm", "max_model_len": 1024}]}
            ).encode()
        )


@pytest.fixture
def engine() -> Iterator[str]:
    with served(Told) as url:
        yield url


def test_engines_may_be_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], engine: str
) -> None:
    fleet = [entry(url=engine), entry(url="http://127.0.0.1:9")]
    _, text = check(tmp_path, capsys, "--probe", backends=fleet)
    assert f"the file says model {MODEL}, the engine other" in text
    assert "the engine takes 1,024 tokens" in text
    assert "a100-80-1: http://127.0.0.1:9 does not say what it serves" in text


def test_it_says_what_was_learned_and_whether_that_can_be_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "learned.json"

    def told(path: Path | None) -> str:
        telemetry = {"learned": {"file": str(path)}} if path else {}
        text = check(tmp_path, capsys, backends=[entry(), entry()], telemetry=telemetry)[1]
        return " ".join(text.split())

    assert "lost with a restart" in told(None)
    assert "there is nothing yet" in told(file)
    assert "warning: telemetry.learned.file" in told(tmp_path / "no" / "such" / "folder.json")
    teach = ["trace", "azure-conv-like", "--duration", "30", "--model", MODEL]
    assert run([*teach, "--learned", str(file)]) == 0
    said = told(file)
    assert "written by a trace 0 minutes ago" in said
    assert "speeds of 0 of the 2 backends" in said
    file.write_bytes(file.read_bytes()[:-30])
    assert "the start will be cold and the file put aside" in told(file)
    file.write_text('{"motley_learned":1,"origin":"gateway","written_unix_s":1,"speeds":[1]}')
    assert "speeds: Expected `object`" in told(file)
