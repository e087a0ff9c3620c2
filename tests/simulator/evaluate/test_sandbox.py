"""Code that a model wrote does what it may, and nothing it does gets out or stays behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simulator.evaluate import sandbox
from simulator.evaluate.sandbox import Limits, run_apart, run_code

LIMITS = Limits(wall_s=20.0, cpu_s=1)
SLEEPER = "7319.25"


def test_asserts_decide():
    assert run_code("def f(x):\n    return x + 1", "assert f(1) == 2").passed
    failed = run_code("def f(x):\n    return x", "assert f(0) == 0\nassert f(1) == 2")
    assert (failed.passed, failed.why) == (False, "not so: assert f(1) == 2")
    assert run_code("def f(:", "").why.startswith("SyntaxError")
    assert run_code("x = [1][3]", "").why == "IndexError: list index out of range"


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("while True:\n    pass", "more than 1 s of CPU"),
        ("import os\nwhile True:\n    os.fork()", "not allowed in the sandbox: os.fork"),
        ("import subprocess\nsubprocess.run(['true'])", "not allowed in the sandbox"),
        ("import _posixsubprocess", "not allowed in the sandbox"),
        ("import multiprocessing", "not allowed in the sandbox"),
        ("import ctypes", "not allowed in the sandbox: import of ctypes"),
        ("import socket", "not allowed in the sandbox: import of socket"),
        ("import os\nos.kill(os.getppid(), 9)", "not allowed in the sandbox: os.kill"),
        ("x = [0] * 10**9", "more than 512 MiB of memory"),
        ("while True:\n    print('x' * 1000)", "printed more than 65536 bytes"),
        ("open('f', 'wb').write(b'x' * 10**7)", "File too large"),
        ("x = [open(f'f{i}', 'w') for i in range(99)]", "Too many open files"),
        ("input()", "EOFError"),
        ("import sys\nsys.exit(0)", "ended by itself before the tests"),
        ("import os\nos._exit(0)", "ended by itself before the tests"),
    ],
)
def test_what_goes_wrong_is_told(code: str, why: str):
    verdict = run_code(code, "", LIMITS)
    assert not verdict.passed
    assert why in verdict.why


def test_waiting_for_ever_ends():
    began = time.monotonic()
    verdict = run_code("import time\ntime.sleep(600)", "", Limits(wall_s=0.5))
    assert verdict.why == "took more than 0.5 s"
    assert time.monotonic() - began < 15


def test_nothing_of_ours_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.chdir(tmp_path)
    code = (
        "import os\nkey = os.environ.get('OPENAI_API_KEY')\nhere = os.listdir('.')\n"
        "open('made', 'w').close()\nfolder = os.getcwd()"
    )
    tests = f"assert key is None\nassert here == []\nassert folder != {str(tmp_path)!r}"
    assert run_code(code, tests).passed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "code",
    [
        "open({path!r}, 'w')",
        "open({path!r}, 'r+')",
        "import os\nos.open({path!r}, os.O_WRONLY)",
        "from pathlib import Path\nPath({path!r}).write_text('mine')",
        "import os\nos.remove({path!r})",
        "import os\nos.chdir('/')\nos.remove({path!r}[1:])",
        "import os\nos.rename({path!r}, 'here')",
        "import os\nos.symlink({folder!r}, 'link')\nopen('link/kept', 'w')",
        "import shutil\nshutil.rmtree({folder!r})",
        "import os\nos.mkdir({folder!r} + '/more')",
    ],
)
def test_what_is_not_its_own_stays_as_it_is(code: str, tmp_path: Path):
    kept = tmp_path / "kept"
    kept.write_text("ours")
    verdict = run_code(code.format(path=str(kept), folder=str(tmp_path)), "")
    assert not verdict.passed
    assert "not allowed in the sandbox" in verdict.why
    assert "outside its folder" in verdict.why
    assert [one.name for one in tmp_path.iterdir()] == ["kept"]
    assert kept.read_text() == "ours"


def test_its_own_folder_is_its_own():
    code = (
        "import os, shutil, tempfile\nfrom pathlib import Path\n"
        "Path('a').mkdir()\nPath('a/b').write_text('1')\nos.rename('a/b', 'a/c')\n"
        "with tempfile.TemporaryFile() as file:\n    file.write(b'2')\n"
        "shutil.rmtree('a')\nopen(os.devnull, 'w').close()"
    )
    assert run_code(code, "assert os.listdir('.') == []").why == ""


@pytest.fixture(params=["with namespaces", "without"])
def isolated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param == "without":
        monkeypatch.setattr(sandbox, "isolation", tuple)
        return False
    if not sandbox.isolation():
        pytest.skip("this machine gives no namespaces: unshare does not work")
    return True


def test_the_usual_holds_with_and_without_namespaces(isolated: bool):
    assert run_code("x = 1", "assert x").passed
    assert "of CPU" in run_code("while True:\n    pass", "", LIMITS).why


def sleepers() -> int:
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return found.stdout.count(f"sleep {SLEEPER}")


def test_no_process_stays_behind_even_one_that_left_the_session(isolated: bool, tmp_path: Path):
    """A shell, as Python is not let start any."""
    script = f"for i in 1 2 3; do setsid sleep {SLEEPER} & sleep {SLEEPER} & done; sleep 0.3"
    command = [*sandbox.isolation(), "sh", "-c", script]
    rc, flood, late = run_apart(command, "", str(tmp_path), Limits(wall_s=10.0))
    assert (rc, flood, late) == (0, False, False)
    assert sleepers() == 0


def test_a_bomb_of_processes_is_over_when_its_time_is(isolated: bool, tmp_path: Path):
    """Each starts two more, a second later, up to 2**6: enough to see who is left."""
    script = (
        "import subprocess, sys, time\nn = int(sys.argv[1])\n"
        "time.sleep(0.05)\n"
        "[subprocess.Popen([sys.executable, '-I', sys.argv[0], str(n - 1)], "
        "start_new_session=True) for _ in range(2) if n]\n"
        f"subprocess.run(['sleep', '{SLEEPER}'])"
    )
    path = tmp_path / "bomb.py"
    path.write_text(script)
    command = [*sandbox.isolation(), sys.executable, "-I", str(path), "4"]
    _, _, late = run_apart(command, "", str(tmp_path), Limits(wall_s=2.0))
    assert late
    assert sleepers() == 0
    left = subprocess.run(["pgrep", "-f", str(path)], capture_output=True, text=True, check=False)
    assert left.stdout == ""


def test_there_is_no_network_in_the_namespace(tmp_path: Path):
    if not sandbox.isolation():
        pytest.skip("this machine gives no namespaces: unshare does not work")
    script = "ls /sys/class/net 2>/dev/null; cat /proc/net/route | wc -l"
    probe = "import socket\ntry:\n    socket.create_connection(('127.0.0.1', 1), 1)\n"
    probe += "except OSError as error:\n    raise SystemExit(error.errno == 101)"
    command = [*sandbox.isolation(), sys.executable, "-I", "-c", probe]
    rc, _, _ = run_apart(command, "", str(tmp_path), Limits())
    assert rc == 1, script
    assert os.getcwd()
