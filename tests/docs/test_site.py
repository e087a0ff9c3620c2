"""The documentation is built strictly: a dead link or a stale reference page fails."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs.plots import PLOTS
from docs.reference import PAGES, REFERENCE, meaning, meanings, sections
from router.config.schema import ConfigFile
from router.policies.registry import POLICIES

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(400)  # ten seconds of CPU, which a busy machine takes minutes for


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-f", str(config), "-d", str(site)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = build(ROOT / "docs" / "mkdocs.yml", folder)
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return folder


def test_the_plots_and_the_formulas_are_on_the_pages(site: Path):
    for name in PLOTS:
        plot = site / "explanation" / "plots" / f"{name}.svg"
        assert plot.read_text("utf-8").count("<path") > 20, name
    page = (site / "explanation" / "how-fast-an-engine-is.html").read_text("utf-8")
    assert "<math" in page
    assert "```" not in page


def test_no_page_fetches_anything_from_elsewhere(site: Path):
    fetched = re.compile(
        r'<(?:script|img|link rel="(?:stylesheet|icon)")[^>]*(?:src|href)="https?:'
    )
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        assert not fetched.search(text), page
        # Where the theme finds this, it asks GitHub for the stars of the repository.
        assert 'data-md-component="source"' not in text, page


def test_a_formula_in_a_sentence_stays_in_it(site: Path):
    apart = re.compile(
        r'</p>\s*<math[^>]*display="inline"|<math[^>]*display="inline".*</math>\s*<p>'
    )
    for page in site.rglob("*.html"):
        assert not apart.search(page.read_text("utf-8")), page


def test_every_fence_is_a_block(site: Path):
    for page in site.rglob("*.html"):
        text = re.sub(r"<code>.*?</code>", "", page.read_text("utf-8"), flags=re.DOTALL)
        assert "```" not in text, page
        assert 'notest="' not in text, page


def test_every_page_is_reached_by_the_navigation(site: Path):
    start = (site / "index.html").read_text("utf-8")
    for page in (ROOT / "docs" / "pages").rglob("*.md"):
        path = page.relative_to(ROOT / "docs" / "pages").with_suffix(".html")
        assert (site / path).exists()
        assert f'href="{path}"' in start or f'href="./{path}"' in start or path.name == "index.html"


def test_nothing_is_fetched_from_elsewhere(site: Path):
    for page in site.rglob("*.html"):
        fetched = re.findall(
            r'<(?:script|img|iframe)[^>]*\bsrc="(https?:[^"]+)|'
            r'<link[^>]*rel="(?:stylesheet|preload)"[^>]*href="(https?:[^"]+)',
            page.read_text("utf-8"),
        )
        assert fetched == [], page


def test_a_dead_link_fails_the_build(tmp_path: Path):
    """On one page and without plots, so that it takes a second."""
    config = (ROOT / "docs" / "mkdocs.yml").read_text("utf-8")
    config = re.sub(r"^nav:.*", "nav: [index.md]\n", config, flags=re.DOTALL | re.MULTILINE)
    config = re.sub(r"^(hooks|extra_css):.*\n", "", config, flags=re.MULTILINE)
    (tmp_path / "mkdocs.yml").write_text(config)
    (tmp_path / "pages").mkdir()
    page = tmp_path / "pages" / "index.md"
    page.write_text("# A\n\n[here](#a)\n")
    assert build(tmp_path / "mkdocs.yml", tmp_path / "site").returncode == 0
    for link in ("nowhere.md", "#nowhere"):
        page.write_text(f"# A\n\n[here]({link})\n")
        built = build(tmp_path / "mkdocs.yml", tmp_path / "site")
        assert built.returncode == 1
        assert "nowhere" in built.stderr
    shutil.rmtree(tmp_path / "site")


@pytest.mark.parametrize("name", REFERENCE)
def test_the_reference_is_what_the_code_says(name: str):
    written = (PAGES / name).read_text("utf-8")
    assert written == REFERENCE[name](), "stale: run python -m docs.reference"


def test_every_setting_says_what_it_means():
    told = {
        (path, name): meaning(path, name)
        for path, section in sections(ConfigFile, "")
        for name in section.model_fields
    }
    assert [f"{path}.{name}" for (path, name), text in told.items() if not text] == []
    used = {key for path, name in told for key in (name, f"{path}.{name}" if path else name)}
    assert set(meanings()) <= used, "a setting that is no more: take it out of docs/settings.yaml"


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_is_explained(name: str):
    (section,) = re.findall(
        rf"^## {re.escape(name)}\n\n(.*?)\n\nParameters:",
        (PAGES / "policies.md").read_text("utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    assert len(section.split()) > 10
