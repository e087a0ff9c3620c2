"""Data sets: what is read, and what is said of a line that cannot be."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from router.domain.errors import ConfigError
from simulator.evaluate.grade import Grader
from simulator.evaluate.items import CATEGORIES, LONGEST_TOKENS, Chat, prompt_of, read_items
from simulator.evaluate.sandbox import run_code
from tests.simulator.evaluate.perfect import SOLUTIONS, right


def test_the_built_in_set_has_twenty_of_each():
    items = read_items("builtin")
    assert Counter(one.category for one in items) == dict.fromkeys(CATEGORIES, 20)
    assert {one.name for one in items if one.category == "code"} == set(SOLUTIONS)
    assert set(LONGEST_TOKENS) == set(CATEGORIES)


@pytest.mark.parametrize("one", read_items("builtin"), ids=lambda one: one.name)
def test_a_right_answer_to_every_built_in_item_is_worth_everything(one):
    if isinstance(one.item, Chat):
        assert all(len(reference) > 15 for reference in one.item.references)
        return
    grade = Grader(run_code).grade(one, right(one.name, one.item))
    assert (grade.score, grade.why) == (1.0, "")
    assert Grader(run_code).grade(one, "Nobody knows.").score == 0.0


def test_a_file_of_ones_own(tmp_path: Path):
    path = tmp_path / "mine.jsonl"
    path.write_text(
        '{"category": "qa", "question": "Who?", "context": "Ann did.", "answers": ["Ann"]}\n\n'
        '{"category": "reasoning", "id": "sum", "question": "1 + 1?", "answer": 2}\n'
    )
    first, second = read_items(str(path))
    assert (first.name, first.category) == ("line 1", "qa")
    assert prompt_of(first.item).startswith("Ann did.\n\nWho?\n\nAnswer with the shortest")
    assert (second.name, second.item.answer) == ("sum", 2)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"category": "qa", "question": "?"', ":2: Input data was truncated"),
        ('{"category": "poem", "question": "?"}', ":2: Invalid value 'poem' - at `$.category`"),
        ('{"question": "?"}', ":2: Object missing required field `category`"),
        ('{"category": "code", "question": "?"}', ":2: Object missing required field `tests`"),
        ('{"category": "qa", "question": "?", "answers": []}', "$.answers"),
        ('{"category": "qa", "question": "?", "answers": ["a"], "anwser": 1}', "`anwser`"),
        ('{"category": "reasoning", "question": "?", "answer": "2"}', "$.answer"),
        (
            '{"category": "reasoning", "id": "a", "question": "?", "answer": 2}',
            "'a' is there twice",
        ),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, says: str):
    path = tmp_path / "mine.jsonl"
    good = '{"category": "reasoning", "id": "a", "question": "1 + 1?", "answer": 2}'
    path.write_text(f"{good}\n{line}\n")
    with pytest.raises(ConfigError) as error:
        read_items(str(path))
    assert says in str(error.value)
    assert str(path) in str(error.value)


def test_a_file_that_is_not_there_or_empty(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"cannot read the data set .*nowhere.jsonl"):
        read_items(str(tmp_path / "nowhere.jsonl"))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ConfigError, match="no item in it"):
        read_items(str(tmp_path / "empty.jsonl"))
