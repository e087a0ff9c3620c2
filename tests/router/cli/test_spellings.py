"""Flags of other routers: taken where they mean the same, explained where they do not."""

from __future__ import annotations

import pytest

from router.cli.main import run
from router.cli.spellings import FLAGS, translated
from router.cli.static_fleet import static_fleet
from router.config.load import load_config
from router.domain.errors import ConfigError

MODEL = "llama-3.1-8b"
FLEET = {"backends": [{"gpu": "a100-80", "model": MODEL, "url": "http://h:1"}]}


def settings(arguments: str) -> list[str]:
    """The ``--set`` values that a command line in others' words ends up as."""
    ours = translated(arguments.split())
    return [ours[n + 1] for n, word in enumerate(ours) if word == "--set"]


def test_production_stacks_words() -> None:
    words = "--static-backends http://a,http://b --static-models m --routing-logic roundrobin"
    ours = translated(f"{words} --port 8001 --service-discovery static --log-stats".split())
    assert ours == [
        *("--static-backends", "http://a,http://b", "--static-models", "m"),
        *("--policy", "round-robin", "--port", "8001"),
    ]
    config = load_config(
        FLEET,
        settings(
            f"--static-aliases gpt-4:{MODEL},gpt-3.5:{MODEL} --engine-stats-interval 5 "
            "--max-instance-failover-reroute-attempts 2 --otel-endpoint http://otel:4318"
        ),
    )
    assert config.aliases == {"gpt-4": MODEL, "gpt-3.5": MODEL}
    assert config.telemetry.scrape_interval_s == 5.0
    assert config.reliability.max_retries == 2
    assert config.telemetry.otlp_endpoint == "http://otel:4318"


def test_sglang_routers_words() -> None:
    ours = translated(["--worker-urls", "http://a:1", "http://b:1", "--policy", "cache_aware"])
    assert ours == ["--static-backends", "http://a:1,http://b:1", "--policy", "sglang-cache-aware"]
    words = (
        "--request-timeout-secs 900 --queue-size=50 --queue-timeout-secs 30 --disable-retries "
        "--cb-failure-threshold 7 --cb-timeout-duration-secs 9 --health-failure-threshold 4 "
        "--health-check-interval-secs 11 --shutdown-grace-period-secs 12 --api-key sk-1 "
        "--load-monitor-interval 3 --max-payload-size 1048576 --log-json"
    )
    assert "json" in translated(words.split())
    config = load_config(FLEET, settings(words))
    limits = config.reliability
    assert (limits.total_timeout_s, limits.queue_size, limits.queue_timeout_s) == (900, 50, 30)
    assert (limits.max_retries, limits.breaker.failure_threshold, limits.breaker.open_s) == (
        0,
        7,
        9,
    )
    assert (limits.health_failures, limits.health_interval_s, limits.drain_timeout_s) == (4, 11, 12)
    assert config.server.api_keys == ["sk-1"]
    assert config.server.max_body_bytes == 1_048_576


@pytest.mark.parametrize(
    "arguments",
    [
        "--session-key x",
        "--max-concurrent-requests 9",
        "--cache-threshold 0.5 --worker-urls http://a:1",
        "--k8s-namespace d",
        "--service-discovery etcd",
    ],
)
def test_what_has_no_meaning_here_says_what_to_use(
    arguments: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", *arguments.split()]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"error: {arguments.split(maxsplit=1)[0]}: ")
    assert complaint.count("\n") == 1


def test_their_thresholds_go_with_their_policy() -> None:
    words = "--cache-threshold 0.4 --balance-abs-threshold=8 --policy cache_aware"
    config = load_config(FLEET, [*settings(words), "policy.name=sglang-cache-aware"])
    assert config.policy.params == {"cache_threshold": 0.4, "balance_abs": 8}


@pytest.mark.parametrize("key", ["it's", "a: b", "{x}", "${K}"])
def test_a_key_is_taken_as_it_stands(key: str) -> None:
    ours = translated(["--api-key", key])
    assert load_config(FLEET, ours[1:]).server.api_keys == [key]


@pytest.mark.parametrize("name", FLAGS)
def test_every_flag_is_taken_or_explained(name: str) -> None:
    values = ["a:b"] * abs(FLAGS[name].takes)
    try:
        assert name not in translated([name, *values])
    except ConfigError as error:
        said = f"{error}"
    else:
        return
    assert said.startswith(f"{name}: ")


def test_a_flag_without_its_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--queue-size", "--disable-retries"]) == 2
    assert "--queue-size needs a value" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("nonsense", "must be path=value"),
        ("server.port.x=1", "server.port"),
        ("backends.x=1", "'backends' is no section"),
        ("server.speling=1", "no such setting"),
        ("server.port={", "not valid YAML"),
    ],
)
def test_settings_that_cannot_be_meant(setting: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_config(FLEET, [setting])


def test_settings_do_not_touch_what_they_are_laid_over() -> None:
    assert load_config(FLEET, ["server.port=9"]).server.port == 9
    assert load_config(FLEET).server.port == 8000


def test_what_neither_flags_nor_engine_tell_must_be_given() -> None:
    with pytest.raises(ConfigError, match="does not say what it serves"):
        static_fleet("http://127.0.0.1:9", None, None, None)


def test_production_stacks_pods_are_selected_as_it_selects_them() -> None:
    config = load_config(
        {"backends": []},
        settings(
            "--service-discovery k8s --k8s-namespace llm --k8s-port 8100 "
            "--k8s-label-selector app=vllm,tier=gold"
        ),
    )
    (source,) = config.discovery.kubernetes
    assert (source.pod_selector, source.namespace) == ("app=vllm,tier=gold", "llm")
    assert (source.port, source.ask_engines, source.service) == (8100, True, None)


def test_sglang_routers_pods_are_too() -> None:
    words = "--service-discovery --selector app=sglang role=worker --service-discovery-port 30000"
    config = load_config({"backends": []}, settings(words))
    (source,) = config.discovery.kubernetes
    assert (source.pod_selector, source.port) == ("app=sglang,role=worker", 30000)
    assert source.namespace is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--service-discovery k8s", "--k8s-label-selector"),
        ("--k8s-label-selector app=vllm", "goes with --service-discovery k8s"),
        ("--service-discovery k8s --k8s-label-selector a=b --k8s-port http", "must be a number"),
        ("--service-discovery consul", "static and k8s are known"),
    ],
)
def test_what_is_missing_for_pods_is_said(words: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        translated(words.split())
