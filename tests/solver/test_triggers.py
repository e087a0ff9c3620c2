"""When a round is due."""

from __future__ import annotations

from solver.triggers import Triggers

BOTH, ONE = frozenset({"a", "b"}), frozenset({"a"})


def _started(interval_s: float = 30.0) -> Triggers:
    triggers = Triggers(interval_s)
    assert triggers.due(0.0, BOTH) is None
    return triggers


def test_every_period() -> None:
    triggers = _started()
    asked = [triggers.due(float(now), BOTH) for now in range(1, 62)]
    assert [n + 1 for n, reason in enumerate(asked) if reason == "period"] == [30, 60]
    assert set(asked) == {None, "period"}


def test_when_a_backend_leaves_or_joins() -> None:
    triggers = _started()
    assert triggers.due(5.0, ONE) == "membership"
    assert triggers.due(10.0, ONE) is None
    assert triggers.due(15.0, BOTH) == "membership"


def test_when_a_backend_changed_its_speed() -> None:
    triggers = _started()
    triggers.drifted()
    assert triggers.due(5.0, BOTH) == "drift"
    assert triggers.due(10.0, BOTH) is None


def test_a_flapping_backend_does_not_keep_the_solver_busy() -> None:
    """Events closer together than a tenth of the period are answered once."""
    triggers = _started()
    reasons = [triggers.due(n * 0.5, ONE if n % 2 else BOTH) for n in range(1, 41)]
    assert sum(reason is not None for reason in reasons) <= 7


def test_an_event_is_not_lost_by_coming_too_early() -> None:
    triggers = _started()
    triggers.drifted()
    assert triggers.due(1.0, BOTH) is None
    assert triggers.due(4.0, BOTH) == "drift"
