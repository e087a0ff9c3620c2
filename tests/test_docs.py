"""The README tells of every policy, command and GPU, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.blocks import placed, write
from benchmarks.readme import BLOCKS, PAGES
from router.cli.main import COMMANDS
from router.config.load import load_config
from router.perf.catalog import gpu_names
from router.policies.registry import POLICIES

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_is_told(name: str):
    assert f"`{name}`" in README


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_told(name: str):
    assert f"`motley {name}`" in README


@pytest.mark.parametrize("name", gpu_names())
def test_every_gpu_is_told(name: str):
    assert re.search(rf"[` ]{re.escape(name)}[` ]", README)


def test_every_make_target_it_names_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"^make ([a-z-]+)$|`make ([a-z-]+)`", README, re.MULTILINE))
    assert {block or inline for block, inline in named} <= targets


def test_every_file_it_links_to_exists():
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize("name", BLOCKS)
def test_every_measured_table_stands_once_and_names_its_commit(name: str):
    texts = [page.read_text("utf-8") for page in PAGES]
    assert sum(text.count(f"<!-- begin:{name} -->") for text in texts) == 1
    block = next(found for text in texts if (found := _block(text, name)))
    assert "at commit " in block


def test_no_page_has_a_table_that_no_command_writes():
    for page in PAGES:
        assert set(re.findall(r"<!-- begin:(\S+) -->", page.read_text("utf-8"))) <= set(BLOCKS)


def test_a_table_is_written_where_it_stands():
    page = "before\n<!-- begin:one -->\nold\n<!-- end:one -->\nafter\n"
    assert placed(page, "one", r"new \1") == page.replace("old", r"new \1")
    assert placed(page, "two", "new") is None
    with pytest.raises(LookupError, match="no page has <!-- begin:nowhere -->"):
        write(PAGES, "nowhere", "new")


def _block(text: str, name: str) -> str:
    found = re.search(f"<!-- begin:{name} -->(.*?)<!-- end:{name} -->", text, re.DOTALL)
    return found[1] if found else ""


def test_the_discovery_example_is_valid():
    wanted = load_config(ROOT / "deploy" / "fleets" / "discovery.yaml").discovery
    assert wanted.files
    assert wanted.dns
    assert wanted.kubernetes


@pytest.mark.parametrize("name", ["demo.yaml", "example.yaml", "production.yaml"])
def test_the_fleet_files_are_valid(name: str):
    assert load_config(ROOT / "deploy" / "fleets" / name).fleet.backends
