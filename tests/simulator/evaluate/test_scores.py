"""Exact match and F1 as SQuAD's script has them; numbers and code found in an answer."""

from __future__ import annotations

import pytest

from simulator.evaluate import scores


@pytest.mark.parametrize(
    ("answer", "truths", "exact", "f1"),
    [
        ("The Grey  granite.", ["grey granite"], 1, 1),
        ("a cat", ["the cat!"], 1, 1),
        ("grey granite blocks", ["grey granite"], 0, 0.8),
        ("It is made of granite", ["grey granite", "granite"], 0, 1 / 3),
        ("", ["granite"], 0, 0),
        ("the", ["an"], 1, 1),  # nothing is left of either
        ("no", ["yes"], 0, 0),
        ("yes yes yes", ["yes"], 0, 0.5),  # repeating does not pay
    ],
)
def test_short_answers(answer: str, truths: list[str], exact: float, f1: float):
    assert scores.exact_match(answer, truths) == exact
    assert scores.f1(answer, truths) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("Answer: 42", 42),
        ("3 + 4 = 7, so\nAnswer: **1,234.50** euros.", 1234.5),
        ("-7", -7),
        ("about 1e3", 1000),
        ("It costs $.50", 0.5),
        ("no idea", None),
        ("9" * 400, None),
    ],
)
def test_the_final_number(answer: str, number: float | None):
    assert scores.final_number(answer) == number


def test_numbers_are_compared_as_numbers():
    assert scores.same_number("Answer: 3.50", 3.5) == 1
    assert scores.same_number("Answer: 3.51", 3.5) == 0
    assert scores.same_number("none", 0.0) == 0


def test_code_is_taken_from_its_block():
    assert scores.code_in("Sure:\n```python\nx = 1\n```\nand\n```\ny\n```") == "x = 1\n"
    assert scores.code_in("```\nx = 1\n```") == "x = 1\n"
    assert scores.code_in("x = 1") == "x = 1"


def test_thoughts_do_not_count():
    assert scores.without_thoughts("<think>It is 4? No, 5.</think>\n6") == "6"
    assert scores.without_thoughts("<think>cut off at 4") == ""
