"""Beyond the breaker: outlier ejection, slow start, panic threshold."""

from __future__ import annotations

import math
from typing import Any

import pytest

from router.config.build import build_dispatcher
from router.config.load import load_config
from router.dispatcher import Dispatcher
from router.domain.decision import Wait
from router.health.care import CareRules, FailureShare, stands_out
from tests.fakes import MODEL, LimitPolicy, ask, assigned, make_dispatcher, spec

RULES = CareRules(failure_ratio=0.3, min_requests=10)


def fleet(rules: CareRules, *names: str, limit: int = 1000) -> Dispatcher:
    dispatcher = make_dispatcher(*names, policy=LimitPolicy(limit))
    dispatcher.state.care = rules
    return dispatcher


def serve(dispatcher: Dispatcher, n: int, now: float, *, bad: str = "", every: int = 2) -> None:
    """A request at a time to every backend; ``bad`` fails each ``every``-th, and never in a row."""
    for round_ in range(n):
        flying = {}
        for k in range(len(list(dispatcher.state.backends))):
            name = f"{now}-{round_}-{k}"
            decision = dispatcher.dispatch(ask(name), now)
            if not isinstance(decision, Wait):
                flying[name] = assigned(decision)
        for name, backend in flying.items():
            if backend == bad and round_ % every == 0:
                dispatcher.fail(name, now)
            else:
                dispatcher.complete(name, now, output_tokens=1)


def states(dispatcher: Dispatcher) -> dict[str, str]:
    return {b.spec.name: b.breaker.state for b in dispatcher.state.backends}


class TestOutlierEjection:
    def test_who_fails_every_other_request_is_out_although_never_three_in_a_row(self):
        dispatcher = fleet(RULES, "a", "b", "c")
        serve(dispatcher, 30, 0.0, bad="b")
        assert states(dispatcher) == {"a": "closed", "b": "open", "c": "closed"}
        assert dispatcher.state.ejected == {"b": 1}

    def test_without_the_rule_it_stays(self):
        dispatcher = make_dispatcher("a", "b", "c", policy=LimitPolicy(1000))
        serve(dispatcher, 30, 0.0, bad="b")
        assert states(dispatcher)["b"] == "closed"

    def test_a_few_failures_are_no_pattern(self):
        dispatcher = fleet(RULES, "a", "b", "c")
        serve(dispatcher, 30, 0.0, bad="b", every=5)  # 20 %, and 30 % are allowed
        assert states(dispatcher)["b"] == "closed"

    def test_when_all_fail_alike_nobody_is_to_blame(self):
        many = [FailureShare() for _ in range(3)]
        for one in many:
            for n in range(20):
                one.note(n % 2 == 0, 10)
        assert not stands_out(many[0], many[1:], RULES)
        assert stands_out(many[0], [FailureShare()] * 2, RULES) is False, "nobody to compare with"

    def test_no_more_are_out_than_allowed(self):
        dispatcher = fleet(RULES, "a", "b")  # one of two is half: allowed
        serve(dispatcher, 30, 0.0, bad="b")
        assert states(dispatcher)["b"] == "open"
        strict = fleet(CareRules(failure_ratio=0.3, min_requests=10, max_ejected=0.3), "a", "b")
        serve(strict, 30, 0.0, bad="b")
        assert states(strict)["b"] == "closed"

    def test_it_comes_back_by_a_probe_with_a_clean_slate(self):
        dispatcher = fleet(RULES, "a", "b", "c")
        serve(dispatcher, 30, 0.0, bad="b")
        serve(dispatcher, 5, 10.0)
        assert states(dispatcher)["b"] == "closed"
        assert dispatcher.state.get("b").failures.share == 0.0


class TestSlowStart:
    def test_a_newcomers_load_grows_with_its_time(self):
        dispatcher = fleet(CareRules(slow_start_s=10.0), "a", limit=1000)
        for n in range(20):
            dispatcher.dispatch(ask(f"old{n}"), 0.0)
        dispatcher.add_backend(spec("b"), 100.0)

        def sent(at_s: float) -> int:
            before = dispatcher.state.get("b").in_flight
            for n in range(20):
                dispatcher.dispatch(ask(f"{at_s}-{n}"), at_s)
            return dispatcher.state.get("b").in_flight - before

        assert sent(100.0) == 1, "one at once, to see how it goes"
        assert 1 <= sent(102.0) < 15
        assert sent(111.0) == 20, "then it is the least loaded one"

    def test_who_recovers_ramps_as_well(self):
        dispatcher = fleet(CareRules(slow_start_s=10.0), "a", "b")
        dispatcher.set_health("b", healthy=False, now=1.0)
        dispatcher.set_health("b", healthy=True, now=50.0)
        assert dispatcher.state.get("b").ramps_from_s == 50.0
        serve_probe = fleet(CareRules(slow_start_s=10.0), "a")
        for n in range(3):
            serve_probe.dispatch(ask(f"f{n}"), 0.0)
            serve_probe.fail(f"f{n}", 0.0)
        serve_probe.dispatch(ask("probe"), 5.0)
        serve_probe.first_token("probe", 6.0)
        assert serve_probe.state.get("a").ramps_from_s == 6.0

    def test_alone_it_gets_everything(self):
        dispatcher = fleet(CareRules(slow_start_s=10.0), "a")
        dispatcher.remove_backend("a", 1.0)
        dispatcher.add_backend(spec("b"), 2.0)
        sent = [assigned(dispatcher.dispatch(ask(f"r{n}"), 2.0)) for n in range(10)]
        assert sent == ["b"] * 10

    def test_those_of_the_start_do_not_ramp(self):
        assert fleet(CareRules(slow_start_s=10.0), "a").state.get("a").ramps_from_s == -math.inf


class TestPanicThreshold:
    @pytest.mark.parametrize(("ill", "used"), [(2, 4), (3, 4), (1, 3)])
    def test_with_too_few_left_all_are_used(self, ill: int, used: int):
        dispatcher = fleet(CareRules(panic_threshold=0.6), "a", "b", "c", "d")
        for name in "abcd"[:ill]:
            dispatcher.set_health(name, healthy=False, now=0.0)
        sent = {assigned(dispatcher.dispatch(ask(f"r{n}"), 0.0)) for n in range(8)}
        assert len(sent) == used

    def test_with_none_left_requests_wait(self):
        dispatcher = fleet(CareRules(panic_threshold=0.6), "a", "b")
        for name in "ab":
            dispatcher.set_health(name, healthy=False, now=0.0)
        assert dispatcher.dispatch(ask("r"), 0.0) == Wait("no_healthy_backend")

    def test_who_drains_is_left_alone(self):
        dispatcher = fleet(CareRules(panic_threshold=1.0), "a", "b", "c")
        dispatcher.drain("a", 0.0)
        dispatcher.set_health("b", healthy=False, now=0.0)
        sent = {assigned(dispatcher.dispatch(ask(f"r{n}"), 0.0)) for n in range(4)}
        assert sent == {"b", "c"}


@pytest.mark.parametrize(
    ("section", "rules"),
    [
        ({}, None),
        ({"outlier": {"enabled": True}}, CareRules(failure_ratio=0.3)),
        ({"slow_start_s": 30.0}, CareRules(slow_start_s=30.0)),
        ({"panic_threshold": 0.5}, CareRules(panic_threshold=0.5)),
    ],
)
def test_the_file_switches_them_on(section: dict[str, Any], rules: CareRules | None):
    backends = [{"gpu": "a100-80", "model": MODEL}]
    config = load_config({"backends": backends, "reliability": section})
    assert build_dispatcher(config).state.care == rules
