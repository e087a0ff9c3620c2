"""Under overload another model answers at once, where the client allows it."""

from __future__ import annotations

from typing import Any

import pytest

from router.config.build import build_dispatcher, rebuild_dispatcher
from router.config.load import load_config
from router.domain.decision import Wait
from router.domain.errors import ConfigError
from router.domain.request import Request
from router.log_replay import replay
from tests.fakes import MODEL, LimitPolicy, ask, assigned, balance, make_dispatcher, spec

SMALL = "qwen2.5-7b"


def dispatcher() -> Any:
    return make_dispatcher("big", spec("small", model=SMALL), policy=LimitPolicy(1))


def test_the_model_asked_for_answers_while_it_can():
    core = dispatcher()
    request = ask("r", fallbacks=(SMALL,))
    assert assigned(core.dispatch(request, 0.0)) == "big"
    assert request.model == MODEL
    assert not core.fell_back


def test_else_the_fallback_does_and_it_is_counted():
    core = dispatcher()
    core.dispatch(ask("r"), 0.0)
    request = ask("s", fallbacks=(SMALL,))
    assert assigned(core.dispatch(request, 0.0)) == "small"
    assert request.model == SMALL, "what is learned of it is learned of the model that answers"
    assert core.fell_back == {(MODEL, SMALL): 1}
    assert balance(core) == 0


def test_not_for_who_did_not_allow_it_nor_where_the_other_is_busy_too():
    core = dispatcher()
    core.dispatch(ask("r"), 0.0)
    assert core.dispatch(ask("s"), 0.0) == Wait("saturated")
    core.dispatch(ask("t", model=SMALL), 0.0)
    request = ask("u", fallbacks=(SMALL,))
    assert core.dispatch(request, 0.0) == Wait("saturated")
    assert request.model == MODEL, "it waits for what it asked for"


def test_a_model_that_is_down_is_a_reason_too():
    core = dispatcher()
    core.set_health("big", healthy=False, now=0.0)
    assert assigned(core.dispatch(ask("r", fallbacks=(SMALL,)), 0.0)) == "small"


@pytest.mark.parametrize("admission", [{}, {"enabled": True}])
def test_the_decision_log_replays_it(admission: dict[str, Any]):
    log: list[bytes] = []
    fleet = [
        {"gpu": "t4", "tensor_parallel": 2, "model": MODEL},
        {"gpu": "a100-80", "model": SMALL},
    ]
    core = build_dispatcher(
        load_config({"backends": fleet, "admission": admission}), log=log.append
    )
    for n in range(60):
        core.dispatch(Request(f"r{n}", MODEL, 0.0, 1_500, fallbacks=(SMALL,)), 0.0)
    assert core.fell_back[MODEL, SMALL] >= 3
    assert replay(log, rebuild_dispatcher) == len(log) - 1


@pytest.mark.parametrize(
    ("fallbacks", "told"),
    [({MODEL: ["gpt-9"]}, "no backend serves"), ({MODEL: [MODEL]}, "stand in for itself")],
)
def test_mistakes_in_the_file_are_named(fallbacks: dict[str, list[str]], told: str):
    with pytest.raises(ConfigError, match=told):
        load_config({"backends": [{"gpu": "l4", "model": MODEL}], "fallbacks": fallbacks})
