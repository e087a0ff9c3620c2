"""Where the engines cannot be installed, one line says why and what to do."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.engines import install
from tests.engines.install import CannotInstallError, check_machine
from tests.engines.servers import engine_python, missing

GOOD = ("Linux", "x86_64", (3, 11), "2.36")


def test_this_is_what_the_lock_files_are_for():
    check_machine(*GOOD)


@pytest.mark.parametrize(
    ("machine", "says"),
    [
        (("Darwin", "arm64", (3, 11), ""), "Linux on x86_64; this is Darwin on arm64"),
        (("Linux", "x86_64", (3, 12), "2.36"), "Python 3.11; this is 3.12.*PYTHON="),
        (("Linux", "x86_64", (3, 11), "2.31"), "glibc 2.34 or newer; this is 2.31"),
        (("Linux", "x86_64", (3, 11), ""), "another C library"),
    ],
)
def test_other_machines_are_told_at_once(machine, says):
    with pytest.raises(CannotInstallError, match=says):
        check_machine(*machine)


def test_without_a_wheel_of_torch_for_the_cpu_the_remedy_is_named(tmp_path, monkeypatch):
    def run(command, **_):
        return subprocess.CompletedProcess(command, 1 if "pip" in command else 0)

    monkeypatch.setattr(install, "HOME", tmp_path)
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(CannotInstallError, match=r"(?s)torch==2\.13\.0\+cpu.*PIP_FIND_LINKS"):
        install.install("vllm")
    assert not install.is_ready("vllm")


def test_an_environment_is_ready_until_its_lock_file_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(install, "HOME", tmp_path / "home")
    monkeypatch.setattr(install, "LOCKS", tmp_path)
    lock = tmp_path / "vllm.txt"
    lock.write_text("one")
    (tmp_path / "home" / "vllm").mkdir(parents=True)
    assert not install.is_ready("vllm")
    (tmp_path / "home" / "vllm" / "ready").write_text(install._wanted("vllm"))
    assert install.is_ready("vllm")
    lock.write_text("two")
    assert not install.is_ready("vllm")


@pytest.mark.parametrize("name", install.NAMES)
def test_every_pin_has_hashes_and_names_no_index(name):
    text = (install.LOCKS / f"{name}.txt").read_text()
    pins = re.findall(r"^[a-z0-9][^ ]*==[^ ]+ \\\n +--hash=sha256:", text, re.MULTILINE)
    assert len(pins) == len(re.findall(r"^[a-z0-9]", text, re.MULTILINE))
    assert len(pins) > (5 if name == "llamacpp" else 100)
    assert "://" not in text
    assert not re.search(r"^torch==", text, re.MULTILINE)  # its own step, see NO_TORCH


def test_an_engine_of_ones_own_is_taken_if_it_is_there(tmp_path, monkeypatch):
    python = tmp_path / "python"
    monkeypatch.setenv("MOTLEY_VLLM_PYTHON", str(python))
    assert engine_python("vllm") is None
    assert "MOTLEY_VLLM_PYTHON" in missing("vllm")
    python.touch()
    assert engine_python("vllm") == python
