"""Writing weights into a fleet file leaves everything else as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from router.config.edit import with_numbers, write_weights
from router.domain.errors import ConfigError

NEW = {"cost": 0.25, "energy": 2.0}
HEAD = "# mine\nbackends:\n  - {gpu: t4, model: llama-3.2-1b}  # small\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "\nplanner:\n  weights: {cost: 0.25, energy: 2}\n"),
        ("planner: {}\n", "planner: {weights: {cost: 0.25, energy: 2}}\n"),
        (
            "planner: {enabled: true} # on\n",
            "planner: {weights: {cost: 0.25, energy: 2}, enabled: true} # on\n",
        ),
        (
            "planner: {weights: {cost: 1}, enabled: true}\n",
            "planner: {weights: {cost: 0.25, energy: 2}, enabled: true}\n",
        ),
        (
            "planner:\n  enabled: true # on\n",
            "planner:\n  weights: {cost: 0.25, energy: 2}\n  enabled: true # on\n",
        ),
        (
            "planner:\n  weights:\n    cost: 1 # old\n    latency: 2\n  # next\n  enabled: true\n",
            "planner:\n  weights:\n    {cost: 0.25, energy: 2}\n  # next\n  enabled: true\n",
        ),
        (
            "planner:\n  weights: {cost: 1} # tuned\nserver: {port: 1}\n",
            "planner:\n  weights: {cost: 0.25, energy: 2} # tuned\nserver: {port: 1}\n",
        ),
        (
            "planner:\nserver: {port: 1}\n",
            "planner: {weights: {cost: 0.25, energy: 2}}\nserver: {port: 1}\n",
        ),
    ],
)
def test_only_the_weights_change(before: str, after: str) -> None:
    found = with_numbers(HEAD + before, "weights", NEW)
    assert found == HEAD + after
    assert yaml.safe_load(found)["planner"]["weights"] == NEW
    assert with_numbers(found, "weights", NEW) == found


def test_a_file_is_replaced_at_once_and_only_by_a_valid_one(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(HEAD)
    write_weights(path, NEW)
    assert "# small" in path.read_text()
    with pytest.raises(ConfigError, match="no weight 'speed'"):
        write_weights(path, {"speed": 1.0})
    assert "cost: 0.25" in path.read_text()
    assert [entry.name for entry in tmp_path.iterdir()] == ["fleet.yaml"]


def test_what_cannot_be_edited_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot edit"):
        write_weights(tmp_path / "none.yaml", NEW)
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="cannot edit"):
        write_weights(tmp_path / "bad.yaml", NEW)
