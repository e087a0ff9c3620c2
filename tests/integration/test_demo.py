"""``motley demo`` and ``motley engine`` as a newcomer runs them."""

import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from router.cli.demo import MODEL, as_typed
from router.config.load import load_config
from simulator.engine_server.listening import listen
from simulator.engine_server.tokens import words
from tests.simulator.engine_server.samples import events

MOTLEY = [sys.executable, "-c", "from router.cli.main import main; main()"]


@contextmanager
def started(*arguments, until):
    """A command, run until it has printed ``until``; yields it and what it printed."""
    with subprocess.Popen(
        [*MOTLEY, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            said = ""
            for line in process.stdout:
                said += line
                if until in line:
                    break
            else:
                pytest.fail(f"it ended: {said}")
            yield process, said
        finally:
            if process.poll() is None:
                process.kill()


def interrupted(process):
    """Press Ctrl-C; the exit code and the last words."""
    process.send_signal(signal.SIGINT)
    last, _ = process.communicate(timeout=20)
    return process.returncode, last


@pytest.fixture(scope="module")
def demo():
    """A running demo and what it printed; interrupted at the end."""
    arguments = ("demo", "--port", "0", "--speed", "20", "--load", "5", "--verbose")
    with started(*arguments, until="in flight") as (process, said):
        yield process, said
        if process.poll() is None:
            interrupted(process)


def url_in(said):
    return re.search(r"Gateway at (http://[\d.:]+)/v1", said).group(1)


def test_the_openai_sdk_gets_every_token_in_order(demo):
    _, said = demo
    with OpenAI(base_url=f"{url_in(said)}/v1", api_key="none", timeout=30) as client:
        stream = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "hello"}],
            stream=True,
            max_tokens=500,
            extra_body={"ignore_eos": True},
        )
        text = "".join(c.delta.content or "" for chunk in stream for c in chunk.choices)
    assert text == words(0, 500)


def test_the_lines_to_try_work(demo):
    _, said = demo
    python = next(line for line in said.splitlines() if line.strip().startswith("python -c"))
    arguments = [sys.executable, *shlex.split(python)[1:]]
    tried = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)
    assert tried.stdout.split()[:3] == ["w0", "w1", "w2"]
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    curl = next(line for line in said.splitlines() if line.strip().startswith("curl -N"))
    tried = subprocess.run(
        shlex.split(curl), capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(events(tried.stdout)[0])["model"] == MODEL
    assert events(tried.stdout)[-1] == "[DONE]"


def test_the_fleet_is_the_one_promised(demo):
    _, said = demo
    workers = httpx.get(f"{url_in(said)}/workers").json()
    listed = workers["workers"] if isinstance(workers, dict) else workers
    names = [f"a100-80-{i}" for i in range(2)] + ["a100-40-0"]
    names += [f"v100-32-{i}" for i in range(2)] + [f"t4-{i}" for i in range(4)]
    assert [worker["name"] for worker in listed] == names
    assert {w["engine"] for w in listed if w["gpu"].startswith("a100")} == {"sglang"}
    assert {w["tensor_parallel"] for w in listed if w["gpu"] == "t4"} == {2}
    assert all(name in said for name in names)


def test_every_panel_of_the_page_is_alive(demo):
    """Planner, shadow, cost, energy, predictions: nothing on the page of a demo is empty."""
    _, said = demo
    url = url_in(said)

    def alive(state):
        plan, totals, shadow = state["plan"], state["totals"], state["trial"]["shadow"]
        return (
            plan["enabled"]
            and plan["prices"]
            and plan["next_in_s"] is not None
            and {share["group"] for share in plan["shares"]}
            and shadow["decisions"] > 0
            and any(backend["forecasts"] for backend in state["backends"])
            and any(backend["decode_factor"] for backend in state["backends"])
            and any(one["attainment"] is not None for one in state["classes"])
            and state["flow"]
            and totals["usd_per_hour"] > 0
            and totals["usd_per_million_tokens"] > 0
            and totals["joules_per_token"] > 0
        )

    deadline = time.monotonic() + 60
    while not alive(state := httpx.get(f"{url}/dashboard/state").json()):
        assert time.monotonic() < deadline, state
        time.sleep(0.5)
    sums = {}
    for share in state["plan"]["shares"]:
        sums[share["work_class"]] = sums.get(share["work_class"], 0.0) + share["share"]
    assert all(0.999 < total < 1.001 for total in sums.values())
    asked = httpx.post(f"{url}/dashboard/whatif", json={"add": ["t4x2:1"], "seeds": 1})
    assert asked.status_code == 202, asked.text
    while (study := httpx.get(f"{url}/dashboard/whatif").json())["state"] == "running":
        assert time.monotonic() < deadline + 60
        time.sleep(0.5)
    assert study["state"] == "done", study
    assert study["study"]["requests"] > 0


def test_trouble_can_be_made_and_is_seen(demo):
    _, said = demo
    url = url_in(said)
    port = url.rpartition(":")[2]
    assert f"motley demo kill v100-1 --port {port}" in said
    done = run("demo", "throttle", "t4-0", "--port", port)
    assert "t4-0 takes 4 times as long" in done.stdout
    workers = {w["name"]: w for w in httpx.get(f"{url}/workers").json()["workers"]}
    assert httpx.get(f"{workers['t4-0']['url']}/fault").json()["slow_factor"] == 4.0
    assert "t4-0 is well again" in run("demo", "heal", "t4-0", "--port", port).stdout
    assert "v100-32-1 crashed" in run("demo", "kill", "v100-1", "--port", port).stdout
    again = run("demo", "heal", "v100-1", "--port", port)
    assert (again.returncode, "does not answer" in again.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("kil", "t4-0"), "Did you mean 'kill'"),
        (("kill", "a100-9"), "a100-9"),
        (("kill", ""), "backend of the demo"),
    ],
)
def test_trouble_needs_a_name(demo, arguments, says):
    _, said = demo
    refused = run("demo", *arguments, "--port", url_in(said).rpartition(":")[2])
    assert refused.returncode == 2
    assert says in refused.stderr


def test_the_policy_can_be_switched_while_it_serves(demo):
    _, said = demo
    url = url_in(said)
    port = url.rpartition(":")[2]
    switched = run("demo", "policy", "round-robin", "--port", port)
    assert "round-robin instead of motley" in switched.stdout
    deadline = time.monotonic() + 20
    while httpx.get(f"{url}/dashboard/state").json()["policy"] != "round-robin":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    back = run("demo", "policy", "motley", "--port", port)
    assert "motley instead of round-robin" in back.stdout
    refused = run("demo", "policy", "motly", "--port", port)
    assert (refused.returncode, "Did you mean 'motley'" in refused.stderr) == (2, True)
    assert "no demo runs at port 9" in run("demo", "policy", "motley", "--port", "9").stderr


def test_trouble_needs_a_demo():
    refused = run("demo", "kill", "t4-0", "--port", "9")
    assert refused.returncode == 2
    assert "no demo answers at http://127.0.0.1:9" in refused.stderr


def test_ctrl_c_stops_everything(demo):
    process, said = demo
    listed = httpx.get(f"{url_in(said)}/workers").json()
    listed = listed["workers"] if isinstance(listed, dict) else listed
    deadline = time.monotonic() + 30.0
    while 'status="completed"' not in httpx.get(f"{url_in(said)}/metrics").text:
        assert time.monotonic() < deadline, "the load did not reach the fleet"
        time.sleep(0.1)
    code, last = interrupted(process)
    assert code == 0
    assert "Traceback" not in last
    assert "Stopped" in last
    assert re.search(r"done [1-9]", last), "the load did not reach the fleet"
    for url in [url_in(said), *[worker["url"] for worker in listed]]:
        host, _, port = url.removeprefix("http://").partition(":")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)))


def run(*arguments):
    return subprocess.run(
        [*MOTLEY, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_an_engine_runs_until_ctrl_c():
    arguments = ("engine", "--gpu", "a100-80", "--port", "0", "--speed", "50")
    with started(*arguments, until="Ctrl-C") as (process, said):
        url = re.search(r"http://[\d.:]+\d", said).group()
        assert "vllm 0." in said
        assert httpx.get(f"{url}/health").is_success
        assert interrupted(process)[0] == 0


def test_init_asks_a_running_engine_and_writes_what_serve_takes(tmp_path):
    arguments = ("engine", "--gpu", "t4", "--tensor-parallel", "2", "--port", "0", "--speed", "50")
    path = tmp_path / "fleet.yaml"
    with started(*arguments, until="Ctrl-C") as (_, said):
        url = re.search(r"http://[\d.:]+\d", said).group()
        cards = ("--gpu", "t4", "--tensor-parallel", "2")
        made = run("init", str(path), "--probe", url, *cards)
        assert made.returncode == 0, made.stderr
    (backend,) = load_config(path).fleet.backends
    assert (backend.url, backend.gpu, backend.engine) == (url, "t4", "vllm")
    assert backend.kv_capacity_tokens


def test_a_killed_engine_ends_with_an_error():
    with started("engine", "--gpu", "l4", "--port", "0", until="Ctrl-C") as (process, said):
        url = re.search(r"http://[\d.:]+\d", said).group()
        httpx.post(f"{url}/fault", json={"kill": True})
        last, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert last.strip().startswith("error: the engine was killed")


@pytest.mark.parametrize("command", [("demo",), ("engine", "--gpu", "a100-80")])
def test_a_taken_port_is_one_clear_line(command):
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        refused = run(*command, "--port", str(port))
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert f"port {port} on 127.0.0.1 is taken" in refused.stderr
    assert "--port" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("engine", "--gpu", "a100-81"), "Did you mean 'a100-80'"),
        (("engine", "--gpu", "t4"), "does not fit"),
        (("demo", "--policy", "motly"), "Did you mean 'motley'"),
    ],
)
def test_bad_input_is_named_with_a_remedy(arguments, says):
    refused = run(*arguments)
    assert refused.returncode == 2
    assert says in refused.stderr
    assert "Traceback" not in refused.stderr


def test_what_to_type_is_told_as_it_works_from_here(monkeypatch: pytest.MonkeyPatch):
    """In a clone nobody's PATH holds motley: the command is the one that started the demo."""
    program = Path(sys.executable).parent / "motley"
    monkeypatch.setenv("PATH", "/nowhere")
    assert as_typed(str(program)) == str(program)
    monkeypatch.setenv("PATH", str(program.parent))
    assert as_typed(str(program)) == "motley"
    assert as_typed("/somewhere/pytest") == "motley"
    assert as_typed("motley") == "motley"
