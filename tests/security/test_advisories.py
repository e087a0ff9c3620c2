"""What ``make audit`` says of the advisory service's answer."""

from __future__ import annotations

from typing import Any

from tests.security.advisories import NOT_ASKED, judged

GOOD: dict[str, Any] = {"name": "anyio", "version": "4.9.0", "vulns": []}
HOLE = {"id": "PYSEC-2026-1", "fix_versions": ["4.9.1"], "aliases": [], "description": "bad"}
UNHEARD: dict[str, Any] = {"name": "msgspec", "skip_reason": "not found on PyPI"}


def test_nothing_against_any():
    assert judged([GOOD], "") == (
        0,
        ["The advisory service holds nothing against any of 1 dependencies."],
    )


def test_what_is_held_against_one_and_what_mends_it():
    assert judged([GOOD | {"vulns": [HOLE]}], "") == (
        1,
        ["anyio 4.9.0: PYSEC-2026-1, mended in 4.9.1"],
    )


def test_one_that_the_service_does_not_know_is_no_good_news():
    assert judged([GOOD, UNHEARD], "") == (1, ["msgspec: not found on PyPI"])


def test_a_service_that_cannot_be_asked_is_said_in_one_line_with_the_command():
    for dependencies in ([], [UNHEARD, UNHEARD]):
        status, lines = judged(dependencies, "connection refused")
        assert status == NOT_ASKED
        assert len(lines) == 1
        assert "cannot be reached from here (connection refused)" in lines[0]
        assert ".venv/bin/pip-audit --strict" in lines[0]
