"""One YAML file; every mistake in it is named, with a remedy beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from router.config.load import MotleyConfig, load_config
from router.domain.errors import ConfigError, ImpossibleFleetError, UnknownNameError
from router.domain.slo import Slo

A100: dict[str, Any] = {"gpu": "a100-80", "model": "llama-3.1-8b"}
T4: dict[str, Any] = {"gpu": "t4", "model": "llama-3.1-8b", "tensor_parallel": 2}


def config(*backends: dict[str, Any], **sections: Any) -> MotleyConfig:
    return load_config({"backends": list(backends) or [A100], **sections})


def names(*backends: dict[str, Any]) -> list[str]:
    return [backend.name for backend in config(*backends).fleet.backends]


class TestFleet:
    def test_backends_are_numbered_per_gpu_in_the_order_of_the_file(self):
        fleet = names(A100, {**T4, "count": 2}, {**A100, "engine": "sglang"}, T4)
        assert fleet == ["a100-80-0", "t4-0", "t4-1", "a100-80-1", "t4-2"]

    def test_or_named_by_the_file(self):
        assert names({**A100, "name": "big"}, A100) == ["big", "a100-80-0"]
        assert names({**A100, "name": "big", "count": 2}) == ["big-0", "big-1"]

    def test_one_url_per_backend(self):
        entry = {**A100, "count": 2, "url": ["http://a:1/", "http://b:2"]}
        urls = [backend.url for backend in config(entry).fleet.backends]
        assert urls == ["http://a:1", "http://b:2"]

    def test_every_field_reaches_the_backend(self):
        entry = {**A100, "zone": "z", "max_model_len": 4096, "weight": 2.5, "labels": {"rack": "7"}}
        (backend,) = config(entry).fleet.backends
        assert (backend.zone, backend.max_model_len, backend.weight) == ("z", 4096, 2.5)
        assert backend.labels == {"rack": "7"}

    def test_a_model_of_your_own(self):
        own = {"parameters": 8_000_000_000, "layers": 32, "hidden_size": 4096, "kv_heads": 8}
        loaded = config({**A100, "model": "mine"}, models={"mine": own})
        assert loaded.fleet.models == {"mine"}
        assert loaded.hardware.iteration_model(loaded.fleet.backends[0]).iteration_s(0, 1, 0) > 0


class TestDefaults:
    def test_a_file_needs_backends_and_nothing_else(self):
        loaded = config()
        assert loaded.policy.name == "motley"
        assert (loaded.source, loaded.server.port) == ("<mapping>", 8000)
        assert set(loaded.slos) == {"interactive", "throughput", "bulk"}

    def test_a_class_of_the_file_replaces_the_default_of_its_name(self):
        slos = config(slos={"interactive": {"ttft_s": 5.0}, "mine": {"e2e_s": 9.0}}).slos
        assert slos["interactive"] == Slo("interactive", ttft_s=5.0)
        assert slos["mine"] == Slo("mine", e2e_s=9.0)
        assert slos["throughput"].ttft_s == 10.0

    def test_settings_are_frozen(self):
        with pytest.raises(ValueError, match="frozen"):
            config().policy.name = "random"


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no backends": ({}, r"backends: is missing"),
    "an empty fleet": ({"backends": []}, r"the fleet is empty: list at least one entry"),
    "no gpu": ({"backends": [{"model": "llama-3.1-8b"}]}, r"backends\[0\].gpu: is missing"),
    "a misspelt setting": (
        {"backends": [{**A100, "tensor_paralel": 2}]},
        r"backends\[0\].tensor_paralel: no such setting; check the spelling",
    ),
    "a misspelt section": ({"backends": [A100], "polcy": {}}, r"polcy: no such setting"),
    "a wrong type": ({"backends": [{**A100, "count": "two"}]}, r"backends\[0\].count: .*integer"),
    "a count of nothing": ({"backends": [{**A100, "count": 0}]}, r"count: .*greater than or equal"),
    "an unknown engine": (
        {"backends": [{**A100, "engine": "tgi"}]},
        r"backends\[0\].engine: there is no engine 'tgi'; .*llamacpp.* is served as engine: vllm",
    ),
    "one url for two": (
        {"backends": [{**A100, "count": 2, "url": "http://a"}]},
        r"backends\[0\]: count is 2 and there is one url; give a list of 2 urls",
    ),
    "two urls for three": (
        {"backends": [T4, {**A100, "count": 3, "url": ["http://a", "http://b"]}]},
        r"backends\[1\]: count is 3 and there are 2 urls; give exactly one url per backend",
    ),
    "a name twice": (
        {"backends": [A100, {**T4, "name": "a100-80-0"}]},
        r"names must be unique; used more than once: a100-80-0",
    ),
    "a name that no header can carry": (
        {"backends": [{**A100, "name": "größte Karte"}]},
        r"'größte Karte' cannot be used.*use ASCII letters",
    ),
    "no name at all": ({"backends": [{**A100, "name": ""}]}, r"'' cannot be used"),
    "an alias to nowhere": (
        {"backends": [A100], "aliases": {"gpt-4": "llama-3.1-70b"}},
        r"alias 'gpt-4' points to the model 'llama-3.1-70b'.*served: llama-3.1-8b",
    ),
    "a negative timeout": (
        {"backends": [A100], "reliability": {"queue_timeout_s": -1}},
        r"reliability.queue_timeout_s: .*greater than 0",
    ),
    "no number": (
        {"backends": [A100], "telemetry": {"scrape_interval_s": float("nan")}},
        r"telemetry.scrape_interval_s: .*finite",
    ),
    "a ceiling below the floor": (
        {"backends": [A100], "reliability": {"breaker": {"open_s": 60}}},
        r"reliability.breaker: max_open_s must be at least open_s",
    ),
    "a port beyond ports": ({"backends": [A100], "server": {"port": 70000}}, r"server.port"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_its_place(mistake: str):
    content, message = MISTAKES[mistake]
    with pytest.raises(ConfigError, match=message):
        load_config(content)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        load_config({"backends": [{"gpu": "t4", "modell": "x"}], "server": {"port": -1}})
    for place in ("backends[0].model:", "backends[0].modell:", "server.port:"):
        assert place in str(caught.value)


def test_unknown_names_suggest_the_near_ones():
    with pytest.raises(UnknownNameError, match="Did you mean 'least-request'"):
        config(policy={"name": "least-requests"})
    for trial in ({"shadow": {"name": "least-reqest"}}, {"canary": {"name": "least-reqest"}}):
        with pytest.raises(UnknownNameError, match="Did you mean 'least-request'"):
            config(policy=trial)
    with pytest.raises(UnknownNameError, match="Did you mean 'a100-80'"):
        config({**A100, "gpu": "a100-8"})


@pytest.mark.parametrize("key", ["", "  "])
@pytest.mark.parametrize("section", ["server", "admin"])
def test_an_empty_key_is_refused_for_it_would_let_everybody_in(section: str, key: str):
    with pytest.raises(ConfigError, match=rf"{section}.api_keys\[1\]: an empty key would let"):
        config(**{section: {"api_keys": ["sk-1", key]}})


class TestImpossible:
    def test_a_model_that_does_not_fit(self):
        with pytest.raises(ImpossibleFleetError, match=r"backend 't4-0'.*GiB"):
            config({"gpu": "t4", "model": "llama-3.1-70b"})

    def test_every_line_is_checked_not_one_of_each_kind(self):
        fine = {"gpu": "v100-32", "model": "llama-3.1-8b", "engine_version": "0.18.1"}
        too_new = {**fine, "engine_version": "0.20.0"}
        for entries in ([fine, too_new], [too_new, fine]):
            with pytest.raises(ImpossibleFleetError, match=r"set engine_version: 0\.18\.1"):
                config(*entries)


class TestFile:
    def written(self, tmp_path: Path, text: str | bytes) -> Path:
        path = tmp_path / "fleet.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def test_is_yaml_and_its_path_is_remembered(self, tmp_path: Path):
        path = self.written(tmp_path, "backends:\n  - {gpu: a100-80, model: llama-3.1-8b}\n")
        assert load_config(path).source == load_config(str(path)).source == str(path)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("backends: [", "is not valid YAML: line 1: expected the node content"),
            (
                "policy: {\n  name: motley\nslos: [\n",
                "line 3: expected ',' or '}', but got ':' while parsing a flow mapping that "
                "begins in line 1",
            ),
            ("", "must be a mapping with a 'backends' list, not None"),
            ("- a\n- b\n", "must be a mapping with a 'backends' list"),
            (b"\xff\xfe\x00", "is not UTF-8 text"),
            ("aliases: {a: b}\n", "backends: is missing"),
            ("backends: []\nserver: {port: 1, port: 2}\n", "'port' is given twice"),
            ("backends: [{gpu: t4, model: m}]\nbackends: []\n", "'backends' is given twice"),
        ],
    )
    def test_mistakes_name_the_file(self, tmp_path: Path, text: str | bytes, message: str):
        path = self.written(tmp_path, text)
        with pytest.raises(ConfigError, match=message) as caught:
            load_config(path)
        assert str(path) in str(caught.value)

    def test_merge_keys_may_repeat_what_they_override(self, tmp_path: Path):
        text = (
            "backends:\n"
            "  - &card {gpu: t4, model: llama-3.1-8b, tensor_parallel: 2}\n"
            "  - {<<: *card, gpu: a100-80, tensor_parallel: 1}\n"
        )
        fleet = load_config(self.written(tmp_path, text)).fleet
        assert [backend.name for backend in fleet.backends] == ["t4-0", "a100-80-0"]

    def test_a_file_that_is_not_there(self, tmp_path: Path):
        with pytest.raises(ConfigError, match=r"cannot read .*nowhere.yaml: No such file"):
            load_config(tmp_path / "nowhere.yaml")

    def test_a_folder_instead_of_a_file(self, tmp_path: Path):
        with pytest.raises(ConfigError, match="cannot read"):
            load_config(tmp_path)
