"""The house stands: floors, reading guides, and words that have no business in a repository."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("router", "simulator", "solver", "telemetry")
KEPT = (*PACKAGES, "tests", "benchmarks", "deploy", "docs", "notebooks", ".ci", ".github")
TEXTS = {".py", ".toml", ".md", ".yaml", ".yml", ".txt", ".ipynb", ".sh", ".json", ".html", ".js"}

BANNED = {
    "a promise instead of code": r"\b(TO[D]O|FIX[M]E|XX[X]|HAC[K])\b",
    "a path of somebody's machine": r"(?<![\w.~/}$-])/(work|root|Users)/\w",
    "a package index": r"--(extra-)?index-ur[l]|files\.pythonhoste[d]|pypi\.org/simpl[e]",
    "how it was written": r"(?i)\b(co-authore[d]-by|generate[d] (by|with) (a|an) |as an a[i]\b)",
}


def modules(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def texts() -> Iterator[Path]:
    yield from (p for p in sorted(ROOT.iterdir()) if p.is_file() and not p.name.startswith("."))
    for folder in KEPT:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and (path.suffix in TEXTS or not path.suffix):
                yield path


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_imports_run_downward_through_the_floors():
    """The contracts of ``pyproject.toml``, checked by import-linter."""
    script = "from importlinter.cli import lint_imports_command as lint; lint()"
    ended = subprocess.run(
        [sys.executable, "-c", script, "--no-cache"],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "0 broken" in ended.stdout


def test_the_floors_name_every_part_of_the_router():
    """A folder that no contract knows could import what it likes."""
    floors = (ROOT / "pyproject.toml").read_text()
    parts = {
        path.stem for path in (ROOT / "router").iterdir() if (path / "__init__.py").is_file()
    } | {path.stem for path in (ROOT / "router").glob("[a-z]*.py")}
    assert {part for part in parts if f"router.{part}" not in floors} == set()


@pytest.mark.parametrize(
    "path", [p for p in modules(*PACKAGES) if p.name == "__init__.py"], ids=named
)
def test_a_package_opens_with_a_reading_guide_and_imports_nothing(path: Path):
    module = ast.parse(path.read_text())
    guide = ast.get_docstring(module)
    assert guide, "a docstring says where to begin"
    assert len(module.body) == 1, "and nothing else"


def test_every_package_and_test_folder_is_one():
    """Mirrored test folders of equal names break the collection without ``__init__.py``."""
    folders = {path.parent for path in modules(*PACKAGES, "tests")}
    assert [named(f) for f in sorted(folders) if not (f / "__init__.py").is_file()] == []


@pytest.mark.parametrize("kind", BANNED)
def test_words_that_have_no_business_here(kind: str):
    banned = re.compile(BANNED[kind])
    found = [
        f"{named(path)}:{number}: {line.strip()[:100]}"
        for path in texts()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if banned.search(line)
    ]
    assert found == []
