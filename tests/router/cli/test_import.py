"""``motley import``: other routers' configurations as they really look, none of it lost."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from router.cli.main import run
from router.config.load import MotleyConfig, load_config

HERE = Path(__file__).parent / "foreign"
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


def imported(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], *flags: str, code: int = 0
) -> tuple[MotleyConfig, str, str]:
    """The configuration, the file's text and what the terminal was told."""
    out = tmp_path / "fleet.yaml"
    assert run(["import", str(source), "-o", str(out), "--force", *flags]) == code
    told = capsys.readouterr().err
    assert run(["check", str(out)]) == code or code
    capsys.readouterr()
    return load_config(out), out.read_text("utf-8"), told


def test_production_stacks_values_become_discovery(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = HERE / "production_stack_values.yaml"
    flags = ("--release", "prod", "--namespace", "llm")
    config, text, told = imported(source, tmp_path, capsys, *flags)
    new, old = config.discovery.kubernetes
    assert (new.service, new.namespace, new.port) == ("prod-llama3-engine-service", "llm", 8000)
    assert (new.template.model, new.template.gpu) == (LLAMA, "a100-80")
    assert (new.template.max_model_len, new.template.engine_version) == (16384, "0.11.0")
    # The engine's own name for the model is what discovery must ask for.
    assert (old.template.model, old.template.tensor_parallel) == ("qwen", 2)
    assert config.hardware.catalog.model("qwen").parameters == 14_770_033_664
    assert old.template.gpu is None
    assert "nvidia.com/gpu.product" in told
    assert config.upstream.api_key_env == "VLLM_API_KEY"
    assert "vllm-key/token" in text


def test_production_stacks_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = HERE / "production_stack_router.sh"
    config, text, _ = imported(source, tmp_path, capsys, "--gpu", "*0.1*=a100-80", "--gpu", "l4")
    first, second = config.fleet.backends
    assert (first.model, first.gpu, first.url) == (LLAMA, "a100-80", "http://10.0.0.1:8000")
    assert (second.model, second.gpu) == ("Qwen/Qwen2.5-7B-Instruct", "l4")
    assert config.aliases["gpt-4o"] == LLAMA
    assert config.telemetry.scrape_interval_s == 5
    assert config.reliability.max_retries == 2
    assert (config.batch.directory, config.server.port) == ("/var/lib/batches", 8001)
    assert config.policy.name == "motley"
    assert "secret" not in text


def test_sglangs_flags_and_its_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--gpu", "a100-40", "--model", "qwen2.5-14b", "--keep-policy")
    config, text, told = imported(HERE / "sglang_router.sh", tmp_path, capsys, *flags)
    assert [b.engine for b in config.fleet.backends] == ["sglang", "sglang"]
    assert (config.policy.name, config.policy.params["balance_abs"]) == ("sglang-cache-aware", 32)
    assert config.reliability.breaker.failure_threshold == 5
    assert config.server.api_keys[0].startswith("sha256:")
    assert "sk-secret" not in text + told
    # Every 10 s is too seldom to decide on: said, not taken.
    assert config.telemetry.scrape_interval_s == 1.0
    assert "--load-monitor-interval=10" in told
    without, *_ = imported(HERE / "sglang_router.sh", tmp_path, capsys, *flags[:4])
    assert without.policy.name == "motley"
    assert not without.policy.params


def test_smgs_discovery(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, _, told = imported(HERE / "smg.sh", tmp_path, capsys, "--model", "llama-3.1-8b")
    (source,) = config.discovery.kubernetes
    assert (source.pod_selector, source.ask_engines) == ("app=sglang,role=worker", True)
    assert (source.port, source.namespace) == (30000, "llm")
    assert (source.template.engine, source.template.model) == ("sglang", "llama-3.1-8b")
    assert "motley.dev/gpu" in told


def test_litellms_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, text, told = imported(HERE / "litellm_config.yaml", tmp_path, capsys, "--gpu", "t4")
    one, two, big = config.fleet.backends
    assert (one.name, one.url, one.model) == ("a100-one", "http://10.0.0.1:8000", LLAMA)
    assert two.tensor_parallel == 2  # the fewest T4 that hold 8 billion parameters
    assert (big.served_model, big.quantization) == ("Acme/Foo-70B-Instruct-AWQ", "awq")
    assert config.hardware.catalog.model(big.model).parameters == 70_000_000_000
    assert config.aliases["llama-8b"] == LLAMA
    assert config.aliases["gpt-4"] == big.model
    assert config.fallbacks == {big.model: (LLAMA,)}
    assert config.upstream.backends["a100-one"].api_key_env == "VLLM_KEY"
    assert config.access.prices[LLAMA].input_usd_per_mtok == pytest.approx(0.1)
    assert config.shared.url == "redis://redis.local:6380/0"
    assert config.reliability.breaker.failure_threshold == 4
    assert "gpt-4o: azure/gpt-4o-eu" in told
    assert "postgres" not in text
    assert "sk-1234" not in text


def test_nginxs_upstreams(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, text, told = imported(HERE / "nginx.conf", tmp_path, capsys, "--keep-policy")
    assert [b.url for b in config.fleet.backends] == [
        "http://10.0.0.1:8000",
        "http://10.0.0.2:8000",
    ]
    assert config.policy.name == "nginx-least-conn"
    assert "10.0.0.3:8000 down" in told
    assert "a100-80 is a guess" in text


KEPT = {
    "production_stack_values.yaml": {
        *("name", "modelURL", "tag", "maxModelLen", "tensorParallelSize", "vllmApiKey"),
        *("requestGPU", "routingLogic", "--served-model-name", "--log-level"),
    },
    "litellm_config.yaml": {
        *("model_name", "model", "api_base", "api_key", "id", "input_cost_per_token"),
        *("routing_strategy", "num_retries", "allowed_fails", "cooldown_time", "fallbacks"),
        *("redis_host", "redis_port", "model_group_alias", "master_key"),
    },
    "sglang_router.sh": {
        *("--worker-urls", "--policy", "--cache-threshold", "--balance-abs-threshold"),
        *("--queue-size", "--retry-max-retries", "--cb-failure-threshold", "--host", "--port"),
        *("--health-check-interval-secs", "--api-key", "--log-level"),
    },
    "production_stack_router.sh": {
        *("--port", "--service-discovery", "--static-backends", "--static-models"),
        *("--static-aliases", "--engine-stats-interval", "--log-stats", "--routing-logic"),
        *("--max-instance-failover-reroute-attempts", "--enable-batch-api"),
        "--file-storage-path",
    },
    "smg.sh": {
        *("--service-discovery", "--selector", "--service-discovery-port"),
        *("--service-discovery-namespace", "--policy"),
    },
}
"""What each source's import puts into the file; everything else in it must be told."""


@pytest.mark.parametrize("name", KEPT)
def test_whatever_is_not_taken_is_told(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (HERE / name).read_text("utf-8")
    _, _, told = imported(HERE / name, tmp_path, capsys, "--gpu", "a100-80", "--keep-policy")
    unsaid = [word for word in _words(text) if word not in KEPT[name] and word not in told]
    assert unsaid == []


WHOLE = {"nodeSelectorTerms", "vllmApiKey", "ingress", "model_group_alias", "fallbacks"} | {
    "cacheserverSpec"
}
"""Sections that are told as one."""


def _words(text: str) -> list[str]:
    """Every flag of a command line; every key of a YAML file that holds a value."""
    if text.lstrip().startswith(("#!", "smg")):
        return [word.partition("=")[0] for word in text.split() if word.startswith("--")]
    return list(_keys(yaml.safe_load(text)))


def _keys(value: object) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from [item] if str(item).startswith("--") else _keys(item)
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in WHOLE or not isinstance(inner, dict | list):
                yield key
            else:
                yield from _keys(inner)


@pytest.mark.parametrize(
    ("text", "flags", "says"),
    [
        ("hello", (), "nothing that can be imported"),
        ("{backends: []}", (), "nothing that can be imported"),
        ("{a: 1}", ("--from", "litellm"), "no model_list"),
        ("{a: 1}", ("--from", "production-stack"), "servingEngineSpec"),
        ("{model_list: {a: 1}}", (), "model_list must be a list"),
        ("{model_list: [{litellm_params: 3}]}", (), "litellm_params must be a mapping"),
        ("{model_list: []}", (), "no engine that Motley could send requests to"),
        (
            "{model_list: [{model_name: a, litellm_params: {model: openai/gpt-4o}}]}",
            (),
            "keep LiteLLM for it, beside Motley",
        ),
        ("smg --worker-urls grpc://a:1", (), "over HTTP"),
        ("smg --worker-urls http://a:1 --policy", (), "--policy needs a value"),
        ("smg --worker-urls 'http://a:1", (), "not a command line"),
        ("vllm-router --static-backends http://a,http://b --static-models x,y,z", (), "3 models"),
        ("smg --worker-urls http://a:1", ("--gpu", "rtx"), "unknown GPU 'rtx'"),
        ("smg --worker-urls http://a:1", ("--gpu", "=t4"), "PATTERN=VALUE"),
        ("smg --worker-urls http://a:1", ("--engine", "tgi"), "vllm, sglang, llamacpp"),
    ],
)
def test_bad_input_is_one_line(
    text: str,
    flags: tuple[str, ...],
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = tmp_path / "source"
    source.write_text(text)
    assert run(["import", str(source), *flags]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_an_engine_that_cannot_run_there_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    source.write_text("smg --worker-urls http://a:1")
    assert run(["import", str(source), "--gpu", "t4", "--model", "llama-3.1-8b"]) == 1
    assert "not complete yet: " in capsys.readouterr().err


def test_a_file_is_not_overwritten_and_stdin_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "fleet.yaml"
    out.write_text("precious")
    assert run(["import", "-", "-o", str(out)]) == 2
    assert "--force" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO("smg --worker-urls http://a:1"))
    assert run(["import", "-", "--gpu", "a100-80", "--model", "llama-3.1-8b"]) == 0
    content = yaml.safe_load(capsys.readouterr().out)
    assert content["backends"][0]["engine"] == "sglang"


def test_one_name_for_two_models_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source.yaml"
    rows = [
        {"model_name": "chat", "litellm_params": {"model": f"hosted_vllm/{name}", "api_base": url}}
        for name, url in ((LLAMA, "http://a:1/v1"), ("Qwen/Qwen2.5-7B-Instruct", "http://b:1/v1"))
    ]
    source.write_text(yaml.safe_dump({"model_list": rows}))
    config, _, told = imported(source, tmp_path, capsys, "--gpu", "a100-80")
    assert config.aliases == {"chat": LLAMA}
    assert "one name cannot stand for two models" in told


def test_a_comment_of_the_source_cannot_break_out_of_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source.yaml"
    row = {
        "model_name": "m",
        "litellm_params": {"model": f"hosted_vllm/{LLAMA}", "api_base": "a:1"},
    }
    odd = {"x\nserver": {"host": "0.0.0.0"}}
    source.write_text(yaml.safe_dump({"model_list": [row], "general_settings": odd}))
    config, _, _ = imported(source, tmp_path, capsys, "--gpu", "a100-80")
    assert config.server.host == "127.0.0.1"


def test_a_file_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "nowhere" / "fleet.yaml"
    source = HERE / "production_stack_router.sh"
    assert run(["import", str(source), "-o", str(out), "--gpu", "l4"]) == 2
    assert capsys.readouterr().err == f"error: cannot write {out}: No such file or directory\n"
