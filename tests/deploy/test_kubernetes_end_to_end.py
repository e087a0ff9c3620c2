"""From the chart to an answer: rendered, applied with kubectl, discovered, routed, and moved about.

The API server is a faithful fake (etcd can be had here, kube-apiserver cannot); kubectl, the chart,
the client library, the gateway and the HTTP between them are real, and the engines are emulated
ones behind real sockets. The gateway has the rights that the chart gives it, and no others.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from router.cli.main import run
from router.config.load import load_config
from router.gateway.placement.build import RuntimeMembers, adapter_of
from router.gateway.placement.carry_out import CarryOut
from tests.deploy.chart import (
    CHART,
    EMULATED,
    NAMESPACE,
    RELEASE,
    Thing,
    example,
    helm,
    named,
    run_helm,
    template,
)
from tests.fakes.certificates import Authority
from tests.fakes.kube_api import FakeKubeApi
from tests.fakes.kube_cluster import FakeCluster
from tests.fakes.kube_kinds import KINDS
from tests.router.cli.test_check_kubernetes import kubeconfig
from tests.router.gateway.fakes import Gateway, eventually, running

MODEL = "llama-3.1-8b"
PLURAL = {kind.name: plural for plural, kind in KINDS.items()}
TOKEN, ACCOUNT = "of-the-gateway", f"{NAMESPACE}:fleet-motley"
FAST: Thing = {
    "pools": {
        name: {"gpu": "a100-80", "model": model, "replicas": count, "emulated": True}
        for name, model, count in (("chat", MODEL, 2), ("small", "llama-3.2-3b", 1))
    },
    "placement": {
        **{"enabled": True, "dryRun": False, "stock": {"a100-80": 3}},
        "minSecondsBetweenSteps": 0,
    },
    "redis": {"enabled": False},
    "gateway": {"replicas": 1},
}


@dataclass
class Installed:
    """A cluster with the chart in it."""

    kube: FakeKubeApi
    cluster: FakeCluster
    folder: Path

    async def kubectl(self, *arguments: str, given: str = "") -> str:
        """As an administrator."""
        program = shutil.which("kubectl")
        if program is None:
            pytest.skip("no kubectl on this machine")
        done = await asyncio.to_thread(
            subprocess.run,
            [program, "--kubeconfig", str(self.folder / "admin"), "-n", NAMESPACE, *arguments],
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        out: str = done.stdout
        return out

    def config(self) -> Thing:
        """What the gateway's pod would find at /etc/motley/motley.yaml, on this machine's terms."""
        data = self.kube.get("configmaps", "fleet-motley", NAMESPACE)["data"]
        config: Thing = yaml.safe_load(data["motley.yaml"])
        for source in config["discovery"]["kubernetes"]:
            source |= {"kubeconfig": str(self.folder / "gateway"), "retry_s": 0.05}
        config["admin"]["port"] = 0
        config["planner"]["history"] = str(self.folder / "plans.sqlite")
        config["server"]["host"] = "127.0.0.1"
        return config

    @asynccontextmanager
    async def gateway(self, **more: Any) -> AsyncIterator[Gateway]:
        async with running(self.config() | more) as gate:
            yield gate

    def named(self, gate: Gateway) -> set[str]:
        return {b.spec.name for b in gate.relay.engine.dispatcher.state.backends if b.usable}

    async def all_found(self, gate: Gateway) -> None:
        """Every deployment has the pods it asks for, each is a backend, and nothing else is."""

        def same() -> bool:
            pods = self.cluster.pods(ready=True)
            return self.cluster.settled() and bool(pods) and self.named(gate) == set(pods)

        await eventually(same)


@asynccontextmanager
async def install(
    folder: Path, *files: Path, values: Thing | None = None
) -> AsyncIterator[Installed]:
    """Render, apply, and let the controllers work."""
    async with FakeKubeApi() as kube, FakeCluster(kube) as cluster:
        kube.bookmark_s = 0.05
        kube.tokens[TOKEN] = ACCOUNT
        kubeconfig(folder / "admin", kube.url)
        kubeconfig(folder / "gateway", kube.url, TOKEN)
        here = Installed(kube, cluster, folder)
        manifests = await asyncio.to_thread(template, *files, values=values, flags=("--no-hooks",))
        assert manifests.returncode == 0, manifests.stderr
        await here.kubectl("apply", "--validate=false", "-f", "-", given=manifests.stdout)
        yield here


@pytest.fixture
async def demo(tmp_path: Path) -> AsyncIterator[Installed]:
    async with install(tmp_path, EMULATED) as here:
        yield here


async def ask(gate: Gateway, tokens: int = 4, model: str = MODEL) -> str:
    """One answer; the pod that gave it."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": tokens,
        "ignore_eos": True,
    }
    answer = await gate.post(body=json.dumps(body).encode(), content_type="application/json")
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] == tokens
    pod: str = answer.headers["x-motley-backend"]
    return pod


async def ask_all(gate: Gateway, count: int = 24) -> set[str]:
    return set(await asyncio.gather(*(ask(gate, 40) for _ in range(count))))


# Discovery


async def test_the_chart_becomes_a_fleet_that_answers(demo: Installed) -> None:
    async with demo.gateway(policy={"name": "round-robin"}) as gate:
        await demo.all_found(gate)
        specs = [b.spec for b in gate.relay.engine.dispatcher.state.backends]
        cards = sorted((spec.gpu, spec.engine, spec.tensor_parallel) for spec in specs)
        assert (
            cards
            == [("a100-80", "sglang", 1)] * 2
            + [("t4", "vllm", 2)] * 4
            + [("v100-32", "vllm", 1)] * 2
        )
        assert {spec.labels["pool"] for spec in specs} == {"a100", "t4", "v100"}
        assert await ask_all(gate) == set(demo.cluster.pods()), "every pod serves"
        assert (await gate.get("/ready?any=true")).status_code == 200
    # Least privilege, both ways: nothing was refused, and nothing is granted that is not used.
    assert demo.kube.denied == []
    used = {(verb, resource) for _, verb, resource in demo.kube.asked}
    (role,) = demo.kube.everything("roles")
    granted = {(v, r) for rule in role["rules"] for r in rule["resources"] for v in rule["verbs"]}
    assert used == granted


async def test_pods_come_and_go_while_requests_run(demo: Installed) -> None:
    async with demo.gateway() as gate:
        await demo.all_found(gate)
        await demo.kubectl("scale", "deployment/fleet-motley-v100", "--replicas=4")
        await eventually(lambda: len(demo.cluster.pods("fleet-motley-v100", ready=True)) == 4)
        await demo.all_found(gate)
        traffic = asyncio.create_task(ask_all(gate, 60))
        await demo.kubectl("scale", "deployment/fleet-motley-v100", "--replicas=1")
        await demo.kubectl("scale", "deployment/fleet-motley-t4", "--replicas=0")
        assert await traffic, "every request was answered in full"
        await eventually(lambda: len(demo.cluster.pods()) == 3)
        await demo.all_found(gate)
        gone = set(await ask_all(gate)) - set(demo.cluster.pods())
        assert not gone, "nobody asks a pod that left"
        gate.assert_at_rest()


async def test_a_pod_that_is_deleted_finishes_its_stream(demo: Installed) -> None:
    await demo.kubectl("scale", "deployment/fleet-motley-t4", "--replicas=0")
    await demo.kubectl("scale", "deployment/fleet-motley-v100", "--replicas=0")
    await demo.kubectl("scale", "deployment/fleet-motley-a100", "--replicas=1")
    async with demo.gateway() as gate:
        await eventually(lambda: len(demo.cluster.pods(ready=True)) == 1)
        await demo.all_found(gate)
        (pod,) = demo.cluster.pods()
        long = asyncio.create_task(ask(gate, 3000))
        backend = gate.relay.engine.dispatcher.state.get(pod)
        await eventually(lambda: backend.in_flight == 1)
        await demo.kubectl("delete", "pod", pod, "--wait=false")
        await eventually(lambda: demo.cluster.pods(ready=True) not in ([], [pod]))
        await demo.all_found(gate)
        assert await ask(gate) != pod, "new requests go to the pod that took its place"
        assert not long.done(), "the old one still streams"
        assert await long == pod


async def test_a_pod_that_changes_its_word_is_replaced(demo: Installed) -> None:
    async with demo.gateway() as gate:
        await demo.all_found(gate)
        pod = demo.cluster.pods("fleet-motley-v100")[0]
        line = json.dumps({"gpu": "v100-32", "model": MODEL, "max_model_len": 4096})
        await demo.kubectl("annotate", "pod", pod, "--overwrite", f"motley.dev/backend={line}")
        state = gate.relay.engine.dispatcher.state
        await eventually(lambda: state.get(pod).spec.max_model_len == 4096)
        # Out of the service's selector: the usual way to take one pod aside for a look.
        await demo.kubectl("label", "pod", pod, "--overwrite", "motley.dev/pool=aside")
        await eventually(lambda: pod not in demo.named(gate))


async def test_interrupted_and_expired_watches_lose_nothing(demo: Installed) -> None:
    async with demo.gateway() as gate:
        await demo.all_found(gate)
        for replicas in (3, 1, 4):
            demo.kube.drop_watches()
            await demo.kubectl("scale", "deployment/fleet-motley-v100", f"--replicas={replicas}")
            demo.kube.compact()
            await eventually(
                lambda n=replicas: len(demo.cluster.pods("fleet-motley-v100", ready=True)) == n
            )
            demo.kube.compact()
            await demo.all_found(gate)
        assert await ask(gate)


async def test_rights_that_are_taken_away_are_named_and_the_fleet_stands(
    demo: Installed, caplog: pytest.LogCaptureFixture
) -> None:
    async with demo.gateway() as gate:
        await demo.all_found(gate)
        known = demo.named(gate)
        role = demo.kube.get("roles", "fleet-motley", NAMESPACE)
        await demo.kubectl("delete", "role", "fleet-motley")
        demo.kube.compact()
        demo.kube.drop_watches()
        await eventually(lambda: "the Kubernetes API forbids to" in caplog.text)
        said = next(r.message for r in caplog.records if "forbids to" in r.message)
        assert "in namespace 'llm': grant the gateway's service account the verbs" in said
        assert "rbac.create: true in the Helm chart" in said
        assert "its last fleet stands" in said
        assert demo.named(gate) == known
        assert await ask(gate)
        demo.kube.put("roles", role)
        await demo.kubectl("scale", "deployment/fleet-motley-v100", "--replicas=3")
        await eventually(lambda: len(demo.named(gate)) == len(known) + 1)


async def test_in_a_pod_the_service_account_asks_over_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the chart runs it: no kubeconfig, but the token and the CA that every pod is given."""
    authority = Authority(tmp_path)
    kube = FakeKubeApi()
    kube.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    kube.tls.load_cert_chain(authority.issue("api"))
    kube.tokens[TOKEN] = ACCOUNT
    (tmp_path / "token").write_text(TOKEN)
    pod = "kubernetes_asyncio.config.incluster_config"
    monkeypatch.setattr(f"{pod}.SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(f"{pod}.SERVICE_CERT_FILENAME", str(authority.ca_file))
    async with kube, FakeCluster(kube) as cluster:
        host, _, port = kube.url.removeprefix("https://").partition(":")
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
        for thing in example(EMULATED):
            if thing["kind"] != "Pod":
                kube.put(PLURAL[thing["kind"]], thing, NAMESPACE)
        here = Installed(kube, cluster, tmp_path)
        config = here.config()
        for source in config["discovery"]["kubernetes"]:
            del source["kubeconfig"]
        async with running(config) as gate:
            await here.all_found(gate)
            assert await ask(gate)
        assert {who for who, _, _ in kube.asked} == {ACCOUNT}
        assert kube.denied == []


async def test_an_upgrade_leaves_the_planners_replicas_alone(tmp_path: Path) -> None:
    """What the planner, or KEDA, has scaled is not scaled back by the next release."""
    async with FakeKubeApi() as kube:
        for name in ("chat", "small"):
            meta = {"name": f"fleet-motley-{name}"}
            kube.put("deployments", {"metadata": meta, "spec": {"replicas": 3}}, NAMESPACE)
        config = kubeconfig(tmp_path / "admin", kube.url)
        for dry, wanted in ((False, {"chat": 3, "small": 3}), (True, {"chat": 2, "small": 1})):
            values = {**FAST, "placement": {**FAST["placement"], "dryRun": dry}}
            (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
            flags = ("-f", str(tmp_path / "values.yaml"), "--dry-run=server")
            done = await asyncio.to_thread(
                run_helm, "template", RELEASE, CHART, "-n", NAMESPACE, *flags,
                "--kubeconfig", config,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            things = list(yaml.safe_load_all(done.stdout))
            found = {
                name: named(things, "Deployment", f"fleet-motley-{name}")["spec"]["replicas"]
                for name in wanted
            }
            assert found == wanted


async def test_check_says_the_same_from_outside(
    demo: Installed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(demo.folder / "gateway"))
    path = demo.folder / "motley.yaml"
    path.write_text(demo.kube.get("configmaps", "fleet-motley", NAMESPACE)["data"]["motley.yaml"])
    await eventually(lambda: len(demo.cluster.pods(ready=True)) == 8)
    assert await asyncio.to_thread(run, ["check", str(path), "--kubernetes"]) == 0
    await demo.kubectl("delete", "role", "fleet-motley")
    assert await asyncio.to_thread(run, ["check", str(path), "--kubernetes"]) == 1
    said = capsys.readouterr().out
    assert "problem: whoever asks here may not watch pods in namespace 'llm'" in said


async def test_helm_itself_takes_the_chart_and_its_notes_say_what_is_next(tmp_path: Path) -> None:
    async with FakeKubeApi() as kube:
        config = kubeconfig(tmp_path / "admin", kube.url)
        done = await asyncio.to_thread(
            subprocess.run,
            [
                *(helm(), "install", RELEASE, str(CHART), "-n", NAMESPACE, "-f", str(EMULATED)),
                *("--dry-run=client", "--disable-openapi-validation", "--kubeconfig", str(config)),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert "t4: 4 x (2 x t4), emulated vllm, llama-3.1-8b" in notes
    assert "motley check" in notes
    assert "No API keys: whoever reaches the service may use it." in notes


async def test_helm_says_which_operator_is_missing_before_it_installs(tmp_path: Path) -> None:
    async with FakeKubeApi() as kube:
        kube.put("namespaces", {"metadata": {"name": "kube-system"}})
        config = kubeconfig(tmp_path / "admin", kube.url)
        flags = ["--set", "monitoring.serviceMonitor=true", "--disable-openapi-validation"]
        done = await asyncio.to_thread(
            subprocess.run,
            [
                *(helm(), "install", RELEASE, str(CHART), "-n", NAMESPACE, "-f", str(EMULATED)),
                *("--dry-run=server", *flags, "--kubeconfig", str(config)),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode != 0
    assert (
        "the cluster has no Prometheus operator (monitoring.coreos.com/v1): install "
        "kube-prometheus-stack, or set monitoring.serviceMonitor" in done.stderr
    )


# Placement


@pytest.fixture
async def placing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Installed, Gateway, Callable[..., Any]]]:
    """Two models on three cards, and the gateway's own adapter with its own rights."""
    async with install(tmp_path, values=FAST) as here:
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "gateway"))
        config = here.config()
        place = config["planner"]["placement"]
        config["planner"] |= {"enabled": False}
        async with running(config) as gate:
            await here.all_found(gate)
            await eventually(lambda: len(here.named(gate)) == 3)

            async def carry_out(wanted: dict[str, int], **settings: Any) -> Any:
                planner = {**config["planner"], "placement": {**place, **settings}}
                members = RuntimeMembers(gate.relay._rest.state.runtime)
                adapter = await adapter_of(load_config({**config, "planner": planner}), members)
                work = CarryOut(adapter, members, ready_timeout_s=5.0, drain_timeout_s=5.0)
                try:
                    await adapter.survey([b.spec for b in members.backends()])
                    return await work.run(wanted)
                finally:
                    await adapter.close()

            yield here, gate, carry_out


CHAT, SMALL = f"a100-80/vllm/{MODEL}", "a100-80/vllm/llama-3.2-3b"


def replicas(here: Installed) -> dict[str, int]:
    return {
        name: here.kube.get("deployments", f"fleet-motley-{name}", NAMESPACE)["spec"]["replicas"]
        for name in ("chat", "small")
    }


async def test_pools_are_scaled_under_traffic_and_back(
    placing: Any, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    here, gate, carry_out = placing
    caplog.set_level(logging.INFO, "motley.placement")
    dry = await carry_out({CHAT: 1, SMALL: 2}, dry_run=True)
    assert sorted(step.kind for step in dry) == ["start", "stop"]
    assert "would change deployment fleet-motley-chat: 2 -> 1 replicas" in caplog.text
    assert replicas(here) == {"chat": 2, "small": 1}

    stop = asyncio.Event()

    async def traffic() -> int:
        answered = 0
        while not stop.is_set():
            await asyncio.gather(ask(gate, 30), ask(gate, 30, "llama-3.2-3b"))
            answered += 2
        return answered

    asking = asyncio.create_task(traffic())
    steps = await carry_out({CHAT: 1, SMALL: 2})
    assert [(step.kind, step.failure) for step in steps] == [("stop", ""), ("start", "")]
    assert replicas(here) == {"chat": 1, "small": 2}
    await here.all_found(gate)

    path = here.folder / "motley.yaml"
    path.write_text(yaml.safe_dump(here.config()))
    assert await asyncio.to_thread(run, ["plans", "--undo", "-c", str(path)]) == 0
    assert "fleet-motley-chat: 1 -> 2 replicas" in capsys.readouterr().out
    assert replicas(here) == {"chat": 1, "small": 2}, "shown, not done"
    assert await asyncio.to_thread(run, ["plans", "--undo", "--yes", "-c", str(path)]) == 0
    assert replicas(here) == {"chat": 2, "small": 1}
    with pytest.raises(Exception, match="an operator took the placement back"):
        await carry_out({CHAT: 1, SMALL: 2})
    assert await asyncio.to_thread(run, ["plans", "--resume", "-c", str(path)]) == 0
    stop.set()
    assert await asking > 0, "every request was answered in full, throughout"
    assert here.kube.denied == []
    gate.assert_at_rest()


async def test_a_pod_that_never_gets_ready_costs_nothing_else(placing: Any) -> None:
    here, gate, carry_out = placing
    here.cluster.stuck.add("fleet-motley-small")
    steps = await carry_out({CHAT: 1, SMALL: 2}, ready_timeout_s=0.5)
    assert "deployment fleet-motley-small: no new pod is ready within 0.5 s" in steps[-1].failure
    assert replicas(here)["small"] == 1
    assert await ask(gate)
    assert await ask(gate, model="llama-3.2-3b")


async def test_a_right_that_placement_lacks_is_named(placing: Any) -> None:
    here, gate, carry_out = placing
    here.kube.forbidden.add(("patch", "deployments/scale"))
    steps = await carry_out({CHAT: 1, SMALL: 2})
    assert (
        "forbids to patch deployments/scale in namespace 'llm': grant the gateway's service "
        "account the verb patch on deployments/scale (placement.enabled and rbac.create: true"
    ) in steps[-1].failure
    assert await ask(gate)


@pytest.mark.full
async def test_the_planner_retires_a_replica_that_nobody_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole loop: traffic, a plan in a process of its own, a deployment scaled, pods gone."""
    async with install(tmp_path, values=FAST) as here:
        config = here.config()
        config["planner"] |= {"interval_s": 1.0, "window_s": 20.0}
        config["planner"]["placement"] |= {"interval_s": 2.0, "hysteresis": 0.0}
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "gateway"))
        async with running(config) as gate:
            await eventually(lambda: len(here.named(gate)) == 3)
            async with asyncio.timeout(60):
                while replicas(here) != {"chat": 1, "small": 1}:
                    await ask(gate, model="llama-3.2-3b")
                    await ask(gate)
            await eventually(lambda: len(here.named(gate)) == 2)
            assert await ask(gate)
            assert await ask(gate, model="llama-3.2-3b")
            await asyncio.sleep(1.0)
        assert here.kube.denied == []
    out = tmp_path / "plans.json"
    arguments = ["plans", str(tmp_path / "plans.sqlite"), "--json", str(out)]
    assert await asyncio.to_thread(run, arguments) == 0
    plans = json.loads(out.read_text())["plans"]
    applied = next(p for p in plans if p["kind"] == "placement" and p["result"].get("steps"))
    assert applied["result"]["preview"] == ["deployment fleet-motley-chat: 2 -> 1 replicas"]
    assert [step["kind"] for step in applied["result"]["steps"]] == ["stop"]


async def test_every_error_is_an_openai_one_when_there_is_no_engine(demo: Installed) -> None:
    for name in ("a100", "v100", "t4"):
        await demo.kubectl("scale", f"deployment/fleet-motley-{name}", "--replicas=0")
    async with demo.gateway() as gate, httpx.AsyncClient(base_url=gate.url) as client:
        await eventually(lambda: not demo.cluster.pods() and not demo.named(gate))
        assert (await client.get("/ready?any=true")).status_code == 503
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
        answer = await client.post("/v1/chat/completions", json=body)
        assert answer.status_code in (404, 503)
        assert answer.json()["error"]["message"]
