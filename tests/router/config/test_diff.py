"""What a reload tells of the difference, without telling secrets."""

from __future__ import annotations

import json
from typing import Any

from router.config.diff import changes, masked
from router.config.load import MotleyConfig, load_config

HASH = "sha256:" + "ab" * 32


def config(**sections: Any) -> MotleyConfig:
    entry = {"gpu": "a100-80", "model": "llama-3.1-8b", "url": "http://user:pw@h:1"}
    return load_config({"backends": [entry], **sections})


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
    assert "http://***@h:1" in text
