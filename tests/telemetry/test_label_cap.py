"""What clients write does not become series without end."""

from __future__ import annotations

from telemetry.label_cap import LONGEST, LabelCap


def test_the_first_few_pass_and_stay() -> None:
    cap = LabelCap(2)
    assert [cap(name) for name in ("a", "b", "c", "a", "d")] == ["a", "b", "other", "a", "other"]
    assert cap.refused == 2


def test_the_operators_own_names_always_pass() -> None:
    cap = LabelCap(1)
    cap.admit("mine")
    assert [cap("x"), cap("mine")] == ["other", "mine"]


def test_long_and_broken_values_become_harmless() -> None:
    cap = LabelCap(9)
    assert len(cap("x" * 10_000)) == LONGEST
    assert cap("a\ud800b") == "a?b"
