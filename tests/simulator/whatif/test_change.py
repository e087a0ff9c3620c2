"""A change of the fleet, as a person writes it."""

from __future__ import annotations

from collections import Counter

import pytest

from router.config.load import MotleyConfig, load_config
from router.domain.errors import MotleyError
from simulator.whatif.change import Change, changed

MODEL = "llama-3.1-8b"


@pytest.fixture
def config() -> MotleyConfig:
    return load_config(
        {
            "backends": [
                {"gpu": "a100-80", "engine": "sglang", "model": MODEL},
                {"gpu": "v100-32", "count": 2, "model": MODEL, "zone": "old"},
                {"gpu": "t4", "count": 3, "model": MODEL, "tensor_parallel": 2},
            ]
        }
    )


def kinds(config: MotleyConfig) -> Counter[tuple[str, int, str]]:
    return Counter((s.gpu, s.tensor_parallel, s.engine) for s in config.fleet.backends)


def test_what_is_added_is_set_up_as_its_kind_is(config: MotleyConfig) -> None:
    then = changed(config, Change(add=("t4:2", "v100")))
    assert kinds(then)["t4", 2, "vllm"] == 5
    assert kinds(then)["v100-32", 1, "vllm"] == 3
    added = [s for s in then.fleet.backends if s.name.startswith("new-")]
    assert [s.zone for s in added] == ["", "", "old"]
    assert len({s.name for s in then.fleet.backends}) == 9


def test_a_new_kind_of_card(config: MotleyConfig) -> None:
    then = changed(config, Change(add=("l4x2:3/sglang",)))
    assert kinds(then)["l4", 2, "sglang"] == 3
    assert {s.model for s in then.fleet.backends} == {MODEL}


def test_removing_a_type_some_of_it_or_one_backend(config: MotleyConfig) -> None:
    assert "v100-32" not in {
        s.gpu for s in changed(config, Change(remove=("v100",))).fleet.backends
    }
    assert kinds(changed(config, Change(remove=("t4:2",))))["t4", 2, "vllm"] == 1
    left = {s.name for s in changed(config, Change(remove=("t4-1",))).fleet.backends}
    assert "t4-1" not in left
    assert {"t4-0", "t4-2"} <= left


def test_a_new_policy_starts_with_its_own_defaults(config: MotleyConfig) -> None:
    then = changed(config, Change(policy="least-request"))
    assert (then.policy.name, dict(then.policy.params)) == ("least-request", {})
    assert then.fleet == config.fleet


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({}, "nothing would change"),
        ({"load": 0.0}, "--load"),
        ({"load": float("nan")}, "--load"),
        ({"add": ("t4:0",)}, "t4:0"),
        ({"add": ("2 t4s",)}, "2 t4s"),
        ({"add": ("t5:1",)}, "t5"),
        ({"add": ("v100:1/sglang",)}, "v100"),
        ({"remove": ("h100",)}, "h100"),
        ({"remove": ("t4:4",)}, "only 3"),
        ({"remove": ("t4:x",)}, "GPU:COUNT"),
        ({"remove": ("a100", "v100", "t4")}, "no backend would be left"),
        ({"policy": "motly"}, "motly"),
    ],
)
def test_what_makes_no_sense_is_named(
    config: MotleyConfig, change: dict[str, object], named: str
) -> None:
    with pytest.raises(MotleyError, match=named):
        changed(config, Change(**change))  # type: ignore[arg-type]
