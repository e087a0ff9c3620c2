"""RELIABILITY.md names tests that exist and says what its generator says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from benchmarks.blocks import placed
from benchmarks.promises import named_tests, table
from benchmarks.reliability import PAGE, ROOT, figures


@pytest.mark.parametrize("named", sorted(set(named_tests())))
def test_a_named_test_exists(named: str) -> None:
    file, _, function = named.partition("::")
    tree = ast.parse(Path(ROOT, file).read_text("utf-8"))
    defined = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert (
        function in defined
        if function
        else any(n.startswith("test_") for n in defined)
        or ("TestCase" in Path(ROOT, file).read_text("utf-8"))
    )


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text("utf-8")
    assert placed(page, "promises", table()) == page, "run python -m benchmarks.reliability none"


def test_every_figure_has_its_place() -> None:
    page = PAGE.read_text("utf-8")
    for name in figures(1.0):
        assert f"<!-- begin:{name} -->" in page
        assert f"<!-- end:{name} -->" in page
