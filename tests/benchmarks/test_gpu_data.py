"""The measurements of a real GPU: what is said of them is what they say."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu import accuracy, online

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "pages" / "explanation" / "a-real-h200.md"
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


def test_the_grid_holds_all_three_kinds_of_iteration_twice():
    for model in accuracy.MODELS:
        points = accuracy.grid(model)
        counts = [sum(m.phase == phase for m in points) for phase in accuracy.PHASES]
        assert counts == [78, 27, 60]
        assert len(accuracy.noise(model)) == len(points)


def test_points_held_back_are_predicted_as_well_as_is_stated():
    errors = 100.0 * np.abs(accuracy.held_back(accuracy.grid("llama-3.1-8b")))
    assert np.median(errors) == pytest.approx(2.7, abs=0.3)
    assert np.percentile(errors, 90) == pytest.approx(9.5, abs=0.7)


def test_the_catalogue_is_off_as_far_as_is_stated():
    points = accuracy.grid("llama-3.1-8b")
    errors = 100.0 * accuracy.errors_of(points, accuracy.shipped("llama-3.1-8b"))
    assert np.median(np.abs(errors)) == pytest.approx(17.0, abs=0.5)


def test_a_factor_is_found_again_from_the_iterations():
    model = accuracy.iteration_model("llama-3.1-8b", accuracy.shipped("llama-3.1-8b"))
    seen = accuracy.traffic("llama-3.1-8b", 0)
    right = online.true_factors(model.linear(), seen)
    wrong = online.true_factors(model.scaled(2.0, 0.5).linear(), seen)
    assert wrong[0] == pytest.approx(right[0] / 2.0, rel=0.1)
    assert wrong[1] == pytest.approx(right[1] * 2.0, rel=0.1)


@pytest.mark.parametrize(
    "table",
    [accuracy.table, accuracy.constants, online.learning_table, online.twin_table],
    ids=["errors", "constants", "learning", "twin"],
)
def test_the_tables_on_the_page_are_what_the_data_give(table):
    made = table().splitlines()
    page = PAGE.read_text("utf-8").splitlines()
    start = page.index(made[0])
    for told, found in zip(page[start : start + len(made)], made, strict=True):
        assert NUMBER.sub("#", told) == NUMBER.sub("#", found)
        said = [float(n) for n in NUMBER.findall(told)]
        assert said == pytest.approx([float(n) for n in NUMBER.findall(found)], rel=0.05, abs=1.01)


def test_the_page_names_its_source():
    assert accuracy.source() in PAGE.read_text("utf-8").replace("\n", " ")
