"""The Helm chart: valid against Kubernetes' own schemas, strict in what it runs, and consistent
with what the gateway reads."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from router.cli.main import run
from router.config.load import load_config
from tests.deploy.chart import (
    CHART,
    EMULATED,
    EXAMPLES,
    NAMESPACE,
    Thing,
    example,
    named,
    of_kind,
    pod_specs,
    pool,
    refusal,
    rendered,
    run_helm,
)
from tests.deploy.custom_resources import complaints
from tests.deploy.monitoring import known_names, names_in, tool

AKS, PLACEMENT = (CHART / "examples" / f"{n}.yaml" for n in ("aks-a100-v100-t4", "placement-keda"))
OLDEST, NEWEST = "1.27", kubernetes_validate.latest_version()
TOGGLES: dict[str, Thing] = {
    "nothing but a pool": pool(),
    "no extras": pool()
    | {
        "redis": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "admin": {"enabled": False},
        "rbac": {"create": False},
        "serviceAccount": {"create": False},
        "gateway": {"pdb": {"enabled": False}, "topologySpread": {"enabled": False}},
    },
    "everything": pool(
        engine="sglang",
        quantization="fp8",
        maxModelLen=4096,
        zone="z1",
        args=["--schedule-policy=lpm"],
        cache={"type": "pvc"},
        priorityClassName="high",
        runtimeClassName="nvidia",
        affinity={"podAntiAffinity": {}},
        env=[{"name": "A", "value": "b"}],
        podAnnotations={"a": "b"},
        autoscaling={"enabled": True},
        image={"digest": "sha256:" + "0" * 64},
    )
    | {
        "imagePullSecrets": [{"name": "regcred"}],
        "gateway": {
            "autoscaling": {"kind": "keda"},
            "nodeSelector": {"pool": "cpu"},
            "tolerations": [{"operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "priorityClassName": "high",
            "extraEnv": [{"name": "A", "value": "b"}],
            "persistence": {"existingClaim": "state"},
        },
        "rbac": {"readNodes": True},
        "monitoring": {
            **dict.fromkeys(("serviceMonitor", "podMonitor", "rules", "dashboards"), True),
            "prometheusUrl": "http://prometheus:9090",
        },
        "ingress": {"enabled": True, "host": "llm.example.com", "tlsSecret": "tls"},
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]},
        "networkPolicy": {"ingressFrom": [{"podSelector": {}}], "extraEgress": [{"ports": []}]},
    },
    "engines elsewhere": {
        "config": {
            "backends": [{"gpu": "t4", "model": "llama-3.2-3b", "url": "http://10.0.0.1:8000"}]
        },
        "gateway": {"autoscaling": {"kind": "hpa", "queueMetric": "motley_queue_depth"}},
    },
}


@pytest.fixture(scope="module", params=[*EXAMPLES, *TOGGLES], ids=lambda p: getattr(p, "stem", p))
def things(request: pytest.FixtureRequest) -> tuple[Thing, ...]:
    """The manifests of every example and of every set of toggles."""
    if isinstance(request.param, Path):
        return example(request.param)
    return tuple(rendered(values=TOGGLES[request.param]))


def test_helm_lints_every_example() -> None:
    for path in EXAMPLES:
        done = run_helm("lint", "--strict", CHART, "-f", path)
        assert done.returncode == 0, done.stdout


def test_kubernetes_knows_every_field(things: tuple[Thing, ...]) -> None:
    own = {"ServiceMonitor", "PodMonitor", "PrometheusRule", "ScaledObject", "HTTPRoute"}
    for thing in things:
        if thing["kind"] in own:
            assert not complaints(thing), f"{thing['kind']}: {complaints(thing)}"
            continue
        for version in (OLDEST, NEWEST):
            kubernetes_validate.validate(thing, version, strict=True)


def test_everything_says_its_namespace(things: tuple[Thing, ...]) -> None:
    """So that `helm template | kubectl apply` puts it where the gateway looks."""
    for thing in things:
        clusterwide = thing["kind"].startswith("Cluster")
        assert thing["metadata"].get("namespace") == (None if clusterwide else NAMESPACE)


def test_nothing_runs_with_more_than_it_needs(things: tuple[Thing, ...]) -> None:
    for name, spec in pod_specs(things):
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] >= 10_000, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["enableServiceLinks"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            real_engine = container["name"] == "engine" and container["command"][0] == "python3"
            assert context["readOnlyRootFilesystem"] is not real_engine, name
            assert container["resources"]["requests"]["cpu"], name
            assert container["resources"]["limits"]["memory"], name
            assert ":latest" not in container["image"], name
            assert "nvidia.com/gpu" not in str(container["resources"]) or real_engine


def test_only_the_gateway_may_ask_the_api(things: tuple[Thing, ...]) -> None:
    for name, spec in pod_specs(things):
        asks = [c["name"] for c in spec["containers"]] in (["gateway"], ["check"])
        assert spec["automountServiceAccountToken"] is asks, name
    for role in [*of_kind(things, "Role"), *of_kind(things, "ClusterRole")]:
        for rule in role["rules"]:
            assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]
            assert not {"secrets", "configmaps", "pods/exec"} & set(rule["resources"])
            assert not {"create", "delete", "deletecollection"} & set(rule["verbs"])


def test_everything_long_lived_has_probes(things: tuple[Thing, ...]) -> None:
    for name, spec in pod_specs(things):
        for container in spec["containers"]:
            if container["name"] == "check":
                continue
            wanted = {"readinessProbe", "livenessProbe"}
            if container["name"] != "redis":
                wanted.add("startupProbe")
            assert wanted <= container.keys(), name


def test_selectors_find_their_pods_and_only_theirs(things: tuple[Thing, ...]) -> None:
    templates = [d["spec"]["template"]["metadata"]["labels"] for d in of_kind(things, "Deployment")]
    for service in of_kind(things, "Service"):
        chosen = service["spec"]["selector"].items()
        assert sum(chosen <= labels.items() for labels in templates) == 1
    for deployment in of_kind(things, "Deployment"):
        chosen = deployment["spec"]["selector"]["matchLabels"].items()
        assert sum(chosen <= labels.items() for labels in templates) == 1
        assert not any("version" in key or "chart" in key for key, _ in chosen)


def test_no_pod_outlives_its_grace(things: tuple[Thing, ...]) -> None:
    """What drains is not killed while it does."""
    for _, spec in pod_specs(things):
        for container in spec["containers"]:
            if container["name"] == "engine":
                hook = container["lifecycle"]["preStop"]["exec"]["command"]
                assert spec["terminationGracePeriodSeconds"] > float(hook[-1])
            if container["name"] == "gateway":
                assert spec["terminationGracePeriodSeconds"] > sum(drain_of(things))


def drain_of(things: tuple[Thing, ...]) -> tuple[float, float]:
    section = config_of(things)["reliability"]
    return section["drain_delay_s"], section["drain_timeout_s"]


def config_of(things: tuple[Thing, ...]) -> Thing:
    data = next(m["data"] for m in of_kind(things, "ConfigMap") if "motley.yaml" in m["data"])
    config: Thing = yaml.safe_load(data["motley.yaml"])
    return config


def test_the_gateway_takes_the_file(things: tuple[Thing, ...], tmp_path: Path) -> None:
    """`motley check` on both files: settings that exist, models that fit their cards."""
    data = next(m["data"] for m in of_kind(things, "ConfigMap") if "motley.yaml" in m["data"])
    for name, text in data.items():
        if name.endswith(".yaml"):
            (tmp_path / name).write_text(text)
            assert run(["check", str(tmp_path / name)]) == 0
    assert load_config(tmp_path / "motley.yaml").server.host == "0.0.0.0"


def test_a_packaged_chart_has_the_alerts_and_dashboards_in_it(tmp_path: Path) -> None:
    """In the repository they are links to the shipped ones."""
    assert run_helm("package", CHART, "-d", tmp_path).returncode == 0
    (archive,) = tmp_path.glob("motley-*.tgz")
    done = run_helm("template", "fleet", archive, "-n", NAMESPACE, "-f", AKS)
    assert done.returncode == 0, done.stderr
    assert [t for t in yaml.safe_load_all(done.stdout) if t] == list(example(AKS))


def test_rendering_twice_gives_the_same() -> None:
    assert rendered(AKS) == list(example(AKS))


# Engines


def launch(things: tuple[Thing, ...], name: str) -> tuple[str, list[str]]:
    """Image and arguments of a pool's engine."""
    spec = named(things, "Deployment", f"fleet-motley-{name}")["spec"]["template"]["spec"]
    return spec["containers"][0]["image"], spec["containers"][0]["args"]


def test_each_card_gets_a_release_and_flags_that_run_on_it() -> None:
    things = example(AKS)
    image, args = launch(things, "v100")
    assert image == "vllm/vllm-openai:v0.18.1"
    assert {"--dtype=float16", "--attention-backend=TRITON_ATTN"} <= set(args)
    image, args = launch(things, "t4")
    assert image.startswith("vllm/vllm-openai:v0.")
    assert image != "vllm/vllm-openai:v0.18.1"
    assert "--dtype=float16" in args
    assert not any("TRITON" in arg or "fp8" in arg for arg in args)
    image, args = launch(things, "a100")
    assert image.startswith("lmsysorg/sglang:v0.5")
    assert {"--dtype=auto", "--tp-size=1", "--enable-metrics"} <= set(args)


def test_a_pool_asks_for_its_cards_and_time_to_load() -> None:
    spec = named(example(AKS), "Deployment", "fleet-motley-t4")["spec"]["template"]["spec"]
    engine = spec["containers"][0]
    assert engine["resources"]["limits"]["nvidia.com/gpu"] == "2"
    probe = engine["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 1200
    assert spec["nodeSelector"] == {"agentpool": "t4"}
    claim = named(example(AKS), "PersistentVolumeClaim", "fleet-motley-t4-models")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_nothing_in_a_pool_is_lost_because_it_is_nought() -> None:
    """Sprig's merge takes 0, false and [] for unset."""
    values = pool(replicas=0, tolerations=[], emulated=False)
    values["poolDefaults"] = {"emulated": True}
    spec = named(rendered(values=values), "Deployment", "fleet-motley-p")["spec"]
    assert spec["replicas"] == 0
    assert "tolerations" not in spec["template"]["spec"]
    assert spec["template"]["spec"]["containers"][0]["command"][0] == "python3"


def test_pods_deployments_and_check_tell_of_the_same_engine() -> None:
    things = example(AKS)
    file = next(m["data"] for m in of_kind(things, "ConfigMap") if "pools.yaml" in m["data"])
    lines = {one["name"]: one for one in yaml.safe_load(file["pools.yaml"])["backends"]}
    for name in ("a100", "v100", "t4"):
        deployment = named(things, "Deployment", f"fleet-motley-{name}")
        told = deployment["metadata"]["annotations"]["motley.dev/backend"]
        notes = deployment["spec"]["template"]["metadata"]["annotations"]
        assert notes["motley.dev/backend"] == told
        line = lines[name]
        assert json.loads(told).items() <= line.items()
        assert line["count"] == deployment["spec"]["replicas"]


def test_the_key_of_the_engines_is_in_no_manifest_but_by_reference() -> None:
    things = example(PLACEMENT)
    engine = named(things, "Deployment", "fleet-motley-chat")["spec"]["template"]["spec"]
    names = {e["name"]: e for e in engine["containers"][0]["env"]}
    assert names["VLLM_API_KEY"]["valueFrom"]["secretKeyRef"]["name"] == "engine-key"
    assert config_of(things)["upstream"] == {"api_key_env": "ENGINE_API_KEY"}
    assert not of_kind(things, "Secret")


# Gateway


def test_the_role_is_what_discovery_and_placement_ask_for() -> None:
    def granted(things: tuple[Thing, ...]) -> set[tuple[str, str]]:
        rules = named(things, "Role", "fleet-motley")["rules"]
        return {(verb, what) for r in rules for what in r["resources"] for verb in r["verbs"]}

    reading = {
        *(("list", "pods"), ("watch", "pods")),
        *(("list", "endpointslices"), ("watch", "endpointslices")),
    }
    assert granted(example(AKS)) == reading
    assert granted(example(PLACEMENT)) == reading | {
        *(("patch", "pods"), ("list", "deployments"), ("patch", "deployments")),
        ("patch", "deployments/scale"),
    }
    assert not of_kind(example(AKS), "ClusterRole")


def test_what_scales_a_deployment_is_the_only_one_to_say_how_many() -> None:
    hpa = named(example(AKS), "HorizontalPodAutoscaler", "fleet-motley")
    assert hpa["spec"]["minReplicas"] == 2
    assert "replicas" not in named(example(AKS), "Deployment", "fleet-motley")["spec"]
    keda = named(example(PLACEMENT), "ScaledObject", "fleet-motley")["spec"]
    queries = " ".join(t["metadata"].get("query", "") for t in keda["triggers"])
    assert "motley_queue_depth" in queries
    assert "motley_slo_attainment_ratio" in queries
    assert f'namespace="{NAMESPACE}"' in queries


def test_what_keda_asks_prometheus_can_be_asked(tmp_path: Path) -> None:
    values = pool(autoscaling={"enabled": True}) | {
        "gateway": {"autoscaling": {"kind": "keda"}},
        "monitoring": {"prometheusUrl": "http://prometheus:9090"},
    }
    scaled = of_kind(rendered(values=values), "ScaledObject")
    asked = [t["metadata"].get("query") for one in scaled for t in one["spec"]["triggers"]]
    queries = [query for query in asked if query]
    assert len(queries) == 4
    for query in queries:
        assert names_in(query) <= known_names(), query
    rules = [{"record": f"asked:{n}", "expr": query} for n, query in enumerate(queries)]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "keda", "rules": rules}]}))
    command = [tool("promtool"), "check", "rules", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


def test_streams_pass_the_ingress_and_operations_do_not() -> None:
    (ingress,) = of_kind(example(AKS), "Ingress")
    notes = ingress["metadata"]["annotations"]
    assert notes["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    assert notes["nginx.ingress.kubernetes.io/proxy-read-timeout"] == "1800"
    assert [p["path"] for p in ingress["spec"]["rules"][0]["http"]["paths"]] == ["/v1"]
    (route,) = of_kind(example(PLACEMENT), "HTTPRoute")
    assert route["spec"]["rules"][0]["timeouts"]["request"] == "1800s"


def test_engines_are_reached_by_the_gateway_and_prometheus_only() -> None:
    policies = {p["metadata"]["name"]: p["spec"] for p in of_kind(example(AKS), "NetworkPolicy")}
    (rule,) = policies["fleet-motley-engines"]["ingress"]
    who = [json.dumps(source) for source in rule["from"]]
    assert len(who) == 2
    assert '"app.kubernetes.io/component": "gateway"' in who[0]
    assert "monitoring" in who[1]
    assert policies["fleet-motley-redis"]["egress"] == []


def test_alerts_and_dashboards_are_the_shipped_ones() -> None:
    things = example(AKS)
    shipped = CHART.parents[1]
    alerts = yaml.safe_load((shipped / "prometheus/rules/motley.alerts.yml").read_text("utf-8"))
    assert named(things, "PrometheusRule", "fleet-motley-alerts")["spec"] == alerts
    (monitor,) = of_kind(things, "ServiceMonitor")
    assert (
        monitor["spec"]["jobLabel"] == "app.kubernetes.io/name"
    )  # the alerts ask for job="motley"
    for path in (shipped / "grafana" / "dashboards").glob("*.json"):
        data = named(things, "ConfigMap", f"fleet-motley-dashboard-{path.stem}")["data"]
        assert json.loads(data[f"motley-{path.name}"]) == json.loads(path.read_text("utf-8"))


def test_a_setting_of_the_file_wins_even_if_it_is_nought() -> None:
    values = pool() | {"config": {"telemetry": {"explain_every_s": None}, "policy": {"seed": 0}}}
    config = config_of(tuple(rendered(values=values)))
    assert config["telemetry"] == {"explain_every_s": None}
    assert config["discovery"]["kubernetes"][0]["namespace"] == NAMESPACE


# What cannot work

IMPOSSIBLE: list[tuple[Any, str]] = [
    (pool(gpu="v100-32", engine="sglang"), "SGLang's kernels need compute capability 8.0"),
    (pool(gpu="t4", engine="sglang"), "SGLang's kernels need compute capability 8.0"),
    (pool(gpu="t4", quantization="fp8"), "V100 and T4 have no FP8 kernels"),
    (pool(gpu="v100-16", quantization="awq"), "V100 has no AWQ or INT8 kernels"),
    (pool(gpu="t4", dtype="bfloat16"), "V100 and T4 have no bfloat16"),
    (pool(gpu="a100"), 'pools.p.gpu must be one of the following: "a100-40"'),
    (pool(modle="x"), "Additional property modle is not allowed"),
    (pool(tensorParallel=3), "pools.p.tensorParallel must be one of the following: 1, 2, 4, 8"),
    ({"pools": {"p": {"gpu": "t4"}}}, "pools.p: model is required"),
    (pool(gpu="v100-32", image={"tag": "v0.23.0"}), "vLLM 0.23.0 does not run on v100-32"),
    (pool(gpu="v100-32", image={"tag": "nightly"}), "does not say which vLLM it holds"),
    (pool(gpu="v100-32", image={"tag": "v0.18.1-cu130"}), "CUDA 13 dropped the v100-32"),
    (pool(gpu="t4", image={"tag": "v0.9.2"}), "use v0.10.2 or newer"),
    (pool(gpu="t4", args=["--attention-backend=FLASH_ATTN"]), "use TRITON_ATTN"),
    (pool(gpu="t4", args=["--kv-cache-dtype=fp8"]), "leave --kv-cache-dtype out"),
    (pool(args=["--max-model-len=100"]), "use pools.p.maxModelLen"),
    (pool(args=["--api-key=secret"]), "use engineApiKey.existingSecret"),
    (pool(nodeSelector={}), "pools.p: nodeSelector is missing"),
    (pool(model="/models/llama"), "pools.p.servedModelName is missing: clients ask for a name"),
    (
        pool(replicas=2, cache={"type": "pvc", "accessModes": ["ReadWriteOnce"]}),
        "several replicas cannot mount a ReadWriteOnce volume",
    ),
    (pool(autoscaling={"enabled": True}), "needs monitoring.prometheusUrl"),
    ({}, "nothing to serve: define engines under `pools`"),
    (pool() | {"gateway": {"autoscaling": {"kind": "keda"}}}, "needs monitoring.prometheusUrl"),
    (pool() | {"placement": {"enabled": True}}, "placement.stock is missing"),
    (
        pool() | {"placement": {"enabled": True, "stock": {"t4": 1}}, "redis": {"enabled": False}},
        "needs Redis, so that one of them places",
    ),
    (pool() | {"ingress": {"enabled": True}}, "ingress.host is missing"),
    (pool() | {"httpRoute": {"enabled": True}}, "httpRoute.parentRefs is missing"),
    (
        pool() | {"config": {"reliability": {"drain_timeout_s": 5}}},
        "config.reliability.drain_timeout_s is set by the chart, with what depends on it; "
        "use gateway.drain.timeoutSeconds",
    ),
    (pool() | {"admin": {"apiKeys": ["plain"]}}, "Does not match pattern '^sha256:"),
    ({"pools": {"p" * 60: pool()["pools"]["p"]}}, "the name is too long for Kubernetes"),
]


@pytest.mark.parametrize(("values", "says"), IMPOSSIBLE, ids=lambda part: str(part)[:60])
def test_what_cannot_work_is_refused_with_its_remedy(values: Thing, says: str) -> None:
    assert says in refusal(values)


def test_the_templates_refuse_where_the_schema_was_skipped() -> None:
    said = refusal(pool(gpu="t4", engine="sglang"), "--skip-schema-validation")
    assert "SGLang does not run on t4 (its kernels need compute capability 8.0)" in said
    said = refusal(pool(gpu="x9"), "--skip-schema-validation")
    assert 'pools.p.gpu: "x9" is unknown; one of a100-40' in said


def test_a_model_that_does_not_fit_is_told_by_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The chart cannot know; the file that it writes for `motley check` can."""
    things = rendered(values=pool(gpu="t4", model="llama-3.1-8b", maxModelLen=8192))
    data = next(m["data"] for m in of_kind(things, "ConfigMap") if "pools.yaml" in m["data"])
    (tmp_path / "pools.yaml").write_text(data["pools.yaml"])
    assert run(["check", str(tmp_path / "pools.yaml")]) == 2
    said = capsys.readouterr().err
    assert "llama-3.1-8b does not fit on 1 x t4: short by" in said
    assert "tensor_parallel: 2" in said


def test_the_schema_knows_every_value() -> None:
    """What only the values have could not be set; what only the schema has would do nothing."""
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))

    def same(known: Thing, given: Thing, at: str) -> None:
        if known.get("additionalProperties") is not False:
            return
        assert set(known["properties"]) - {"global"} == set(given) | (
            {"gpu", "model"} if at == ".poolDefaults" else set()
        ), at
        for key, value in given.items():
            if isinstance(value, dict):
                same(known["properties"][key], value, f"{at}.{key}")

    same(schema, values, "")


def test_emulated_pools_need_no_card() -> None:
    for name, spec in pod_specs(example(EMULATED)):
        assert "nvidia.com/gpu" not in json.dumps(spec["containers"]), name
