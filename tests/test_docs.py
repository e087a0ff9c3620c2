"""The README tells of every policy, command and GPU, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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


def test_the_discovery_example_is_valid():
    wanted = load_config(ROOT / "deploy" / "fleets" / "discovery.yaml").discovery
    assert wanted.files
    assert wanted.dns
    assert wanted.kubernetes


@pytest.mark.parametrize("name", ["demo.yaml", "example.yaml", "production.yaml"])
def test_the_fleet_files_are_valid(name: str):
    assert load_config(ROOT / "deploy" / "fleets" / name).fleet.backends
