"""Every alert has a section in the runbook, and a link that leads there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.monitoring import rules
from tests.deploy.programs import ROOT

RUNBOOK = (ROOT / "docs" / "pages" / "guides" / "runbook.md").read_text("utf-8")
ALERTS = [rule for rule in rules() if "alert" in rule]
SECTIONS = dict(re.findall(r"^## (\w+)\n\n(.*?)(?=^## |\Z)", RUNBOOK, re.DOTALL | re.MULTILINE))
SITE = re.findall(r"^site_url: (\S+)", Path(ROOT / "docs" / "mkdocs.yml").read_text("utf-8"), re.M)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_has_a_section_of_its_severity(rule: dict[str, Any]) -> None:
    section = SECTIONS[rule["alert"]]
    assert section.startswith(f"*{rule['labels']['severity']}.*")
    assert len(section.split()) > 25


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_links_to_its_section(rule: dict[str, Any]) -> None:
    link = rule["annotations"]["runbook_url"]
    assert link == f"{SITE[0]}guides/runbook.html#{rule['alert'].lower()}"


def test_the_runbook_has_no_section_without_an_alert() -> None:
    assert set(SECTIONS) == {rule["alert"] for rule in ALERTS}
