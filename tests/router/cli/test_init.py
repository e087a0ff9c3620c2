"""``motley init`` writes a file that ``motley serve`` takes."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml

from router.cli.init import Line, catalogue_name, document, line_of
from router.cli.main import run
from router.config.load import load_config
from simulator.live.facts import EngineFacts

LINE = Line("http://10.0.0.1:8000", "t4", "vllm", "llama-3.1-8b", 2, "0.11.0", 60_000, 16_384)


def test_what_it_writes_can_be_served(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(document([LINE, Line("http://10.0.0.2:8000", "a100-80", "sglang", LINE.model)]))
    config = load_config(path)
    t4, a100 = config.fleet.backends
    assert (t4.gpu, t4.tensor_parallel, t4.kv_capacity_tokens) == ("t4", 2, 60_000)
    assert (t4.max_model_len, t4.engine_version) == (16_384, "0.11.0")
    assert (a100.engine, a100.kv_capacity_tokens) == ("sglang", None)
    assert "interactive" in config.slos


def test_every_doubt_is_a_comment_where_it_belongs() -> None:
    line = line_of("http://e", "", 1, EngineFacts("vllm", "0.32.0+cpu", "acme/own-model", 2048))
    text = document([line])
    assert "# the engine does not tell its card" in text
    assert "# acme/own-model is not in the catalogue" in text
    assert yaml.safe_load(text)["backends"][0]["engine_version"] == "0.32.0"


@pytest.mark.parametrize(
    ("served", "name"),
    [
        ("llama-3.1-8b", "llama-3.1-8b"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("meta-llama/Meta-Llama-3.1-8B", "llama-3.1-8b"),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2.5-7b"),
    ],
)
def test_the_hubs_names_are_recognised(served: str, name: str) -> None:
    assert catalogue_name(served) == (name, True)


def test_a_strangers_name_is_kept_and_doubted() -> None:
    assert catalogue_name("acme/own") == ("acme/own", False)


def test_strange_names_stay_text() -> None:
    text = document([Line("http://e", "t4", "vllm", 'a": {b}\n# "c')])
    assert yaml.safe_load(text)["backends"][0]["model"] == 'a": {b}\n# "c'


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--probe", "http://127.0.0.1:9"], "cannot reach http://127.0.0.1:9"),
        (["--probe", "ftp://x"], "ftp://x"),
        (["--probe", "http://a", "--gpu", "t5"], "t5"),
        (["--probe", "a", "--probe", "b", "--probe", "c", "--gpu", "t4", "--gpu", "l4"], "2 times"),
        ([], "nobody to ask"),
    ],
)
def test_what_is_wrong_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], named: str
) -> None:
    path = tmp_path / "fleet.yaml"
    assert run(["init", str(path), *words]) == 2
    assert named in capsys.readouterr().err
    assert not path.exists()


def test_a_folder_that_is_missing_is_told_before_anybody_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nowhere" / "fleet.yaml"
    assert run(["init", str(path), "--probe", "http://127.0.0.1:9"]) == 2
    assert "does not exist; make it first" in capsys.readouterr().err


def test_a_file_is_not_overwritten_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text("mine")
    assert run(["init", str(path), "--probe", "http://127.0.0.1:9"]) == 2
    assert "--force" in capsys.readouterr().err
    assert path.read_text() == "mine"


class Typed(io.StringIO):
    """A person at a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_slip_of_a_person_is_asked_for_again_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fleet.yaml"
    typed = ["http://a:8000", "t4", "", "", "", "http://b:8081", "v100", "v100-32", "1", "lama"]
    monkeypatch.setattr("sys.stdin", Typed("\n".join([*typed, "llamacpp", "", "", ""])))
    assert run(["init", str(path)]) == 0
    told = capsys.readouterr()
    assert "unknown GPU 'v100'" in told.out + told.err
    assert "unknown engine 'lama'" in told.out + told.err
    first, second = yaml.safe_load(path.read_text())["backends"]
    assert (first["gpu"], first["engine"]) == ("t4", "vllm")
    assert (second["gpu"], second["engine"]) == ("v100-32", "llamacpp")


def test_what_makes_no_sense_is_asked_for_again_and_blanks_are_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fleet.yaml"
    typed = [" http://a:8000 ", "t4", "0", "-3", "two", " 2 ", "", "   ", " llama-3.1-8b ", "  "]
    monkeypatch.setattr("sys.stdin", Typed("\n".join([*typed, ""])))
    assert run(["init", str(path)]) == 0
    told = capsys.readouterr()
    for slip in ("0", "-3", "two"):
        assert f"{slip!r} is no number of cards: 1 to 64" in told.out + told.err
    assert "the model needs a name" in told.out + told.err
    (only,) = yaml.safe_load(path.read_text())["backends"]
    assert (only["url"], only["tensor_parallel"]) == ("http://a:8000", 2)
    assert only["model"] == "llama-3.1-8b"


@pytest.mark.parametrize("cards", ["0", "-3", "65"])
def test_a_number_of_cards_that_cannot_be_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cards: str
) -> None:
    words = ["init", str(tmp_path / "f.yaml"), "--probe", "http://127.0.0.1:9", "--gpu", "t4"]
    assert run([*words, "--tensor-parallel", cards]) == 2
    assert "Invalid value for '--tensor-parallel'" in capsys.readouterr().err
