"""What a reload tells of the difference, without telling secrets."""

from __future__ import annotations

import json
from typing import Any

from router.config.diff import changes, masked
from router.config.load import MotleyConfig, load_config

HASH = "sha256:" + "ab" * 32


def config(**sections: Any) -> MotleyConfig:
    entry = {"gpu": "a100-80", "model": "llama-3.1-8b", "url": "http://user:pw@h:1"}
    return load_config({"backends": [entry]} | sections)


def test_what_differs_is_named_as_in_the_file() -> None:
    old = config(policy={"name": "motley"}, server={"port": 1})
    new = config(
        policy={"name": "round-robin"},
        server={"port": 2},
        reliability={"idle_timeout_s": 9, "queue_size": 5},
        aliases={"gpt-4": "llama-3.1-8b"},
    )
    told = {str(change): change.hot for change in changes(old, new)}
    assert told == {
        "policy.name: motley -> round-robin": True,
        "server.port: 1 -> 2": False,
        "reliability.idle_timeout_s: 60.0 -> 9.0": True,
        "reliability.queue_size: 1000 -> 5": False,
        "aliases: {} -> none": True,
        "aliases.gpt-4: none -> llama-3.1-8b": True,
    }
    assert changes(old, old) == []


def test_secrets_are_never_told() -> None:
    old = config()
    new = config(
        server={"api_keys": ["sk-secret"]}, access={"keys": [{"name": "team-a", "hash": HASH}]}
    )
    text = "\n".join(str(change) for change in changes(old, new)) + json.dumps(masked(new))
    assert "team-a" in text
    for secret in ("sk-secret", "abab", ":pw@", "user"):
        assert secret not in text
    assert "server.api_keys: [] -> ['***']" in text
    assert masked(new)["access"]["keys"][0]["hash"] == "***", "not even how long it is"
    assert "http://***@h:1" in text


def test_keys_are_told_apart_by_their_holders() -> None:
    def keys(*names: str, **rights: Any) -> MotleyConfig:
        given = [{"name": name, "hash": HASH, **rights} for name in names]
        return config(access={"keys": given})

    told = [str(one) for one in changes(keys("ann", "bob"), keys("bob", "cy", models=["m"]))]
    assert told == [
        "access.keys[ann]: {'hash': '***'} -> none",
        "access.keys[bob]: {'hash': '***'} -> {'models': ['m'], 'hash': '***'}",
        "access.keys[cy]: none -> {'models': ['m'], 'hash': '***'}",
    ]
    assert all(one.hot for one in changes(keys("ann"), keys("bob")))


def test_a_second_key_of_a_holder_is_told_as_well() -> None:
    def keys(*digits: str) -> MotleyConfig:
        given = [{"name": "ann", "hash": f"sha256:{digit * 64}"} for digit in digits]
        return config(access={"keys": given})

    for old, new in (("a", "ba"), ("ba", "a"), ("ba", "ca")):
        assert [one.path for one in changes(keys(*old), keys(*new))] == ["access.keys[ann]"]


def test_what_a_reload_puts_in_force_is_not_said_to_need_a_restart() -> None:
    new = config(
        fallbacks={"llama-3.1-8b": ["llama-3.2-1b"]},
        backends=[
            {"gpu": "a100-80", "model": model, "url": "http://h:1"}
            for model in ("llama-3.2-1b", "llama-3.1-8b")
        ],
        server={"max_json_depth": 9},
        telemetry={"explain_every_s": 1.0},
        reliability={"continuation": {"enabled": True}},
        upstream={"api_key_env": "A", "backends": {"a*": {"api_key_file": "b"}}},
    )
    differing = changes(config(), new)
    assert {one.path.partition(".")[0] for one in differing} >= {"fallbacks", "upstream"}
    assert not [str(one) for one in differing if not one.hot]
