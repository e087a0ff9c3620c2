"""Learning is left out where nobody looks at what is learned, and only there."""

from __future__ import annotations

from array import array
from dataclasses import replace

import pytest

from router.config.load import MotleyConfig, load_config
from router.config.schema import PolicySection, ShadowSection
from router.policies.registry import BLIND_TO_SPEED
from simulator import gateways
from simulator.options import ReplayOptions
from simulator.results import Records
from simulator.run import run_policy
from simulator.synthetic import builtin_trace

MODEL = "llama-3.1-8b"
OPTIONS = ReplayOptions(seed=3)


@pytest.fixture(scope="module")
def config() -> MotleyConfig:
    kinds = [{"gpu": "a100-80"}, {"gpu": "v100-32", "count": 2}]
    return load_config({"backends": [kind | {"model": MODEL} for kind in kinds]})


@pytest.mark.parametrize("policy", sorted(BLIND_TO_SPEED))
def test_the_results_are_the_same_without(
    config: MotleyConfig, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = builtin_trace("azure-conv-like", duration_s=60.0, seed=1)
    without = run_policy(trace, config, policy, OPTIONS)
    monkeypatch.setattr(gateways, "_minds", lambda *_: True)
    learned = run_policy(trace, config, policy, OPTIONS)
    assert columns(without.records) == columns(learned.records)
    assert without.reasons == learned.reasons


def columns(records: Records) -> dict[str, list[object]]:
    """Everything that is known of every request."""
    named = {name: getattr(records, name) for name in dir(records) if not name.startswith("_")}
    found = {name: [repr(x) for x in v] for name, v in named.items() if isinstance(v, array)}
    assert {"backend", "first_token_s", "finished_s", "status"} <= found.keys()
    return found


def minds(config: MotleyConfig, policy: PolicySection, options: ReplayOptions = OPTIONS) -> bool:
    return gateways._minds(replace(config, policy=policy), options)


def test_whoever_looks_gets_it(config: MotleyConfig) -> None:
    blind = PolicySection(name="least-request")
    assert not minds(config, blind)
    assert minds(config, PolicySection(name="motley"))
    shadow = ShadowSection(name="motley")
    assert minds(config, blind.model_copy(update={"shadow": shadow}))
    assert minds(config, blind, ReplayOptions(plan=True))
    assert minds(config, blind, ReplayOptions(fallback=True))
    admission = config.admission.model_copy(update={"enabled": True})
    assert minds(replace(config, admission=admission), blind)
